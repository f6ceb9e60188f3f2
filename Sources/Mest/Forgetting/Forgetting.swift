// SPDX-License-Identifier: Apache-2.0
// Forgetting (Toneva et al. 2019, used by MEST section 4): a sample is forgotten when it is answered
// correctly at one presentation and wrongly at the next. Per sample one byte (count, at most 254) and
// three or four bits, inside the planned block; more where the config asks for margins, a cap or an order.

import CMest
import CMestKernels

struct ForgettingPlaces {
    var count = Place.none      // u8 a sample
    var previous = Place.none   // bit: the last answer was correct
    var learned = Place.none    // bit: correct at least once
    var seen = Place.none       // bit: presented at least once
    var removed = Place.none    // bit: out of the training set; only for two phases and sieving
    var queue = Place.none      // u32 for each sample that is out by sieving, in the order in which they left
    var marginSum = Place.none  // float a sample
    var marginCount = Place.none // u16 a sample
    var label = Place.none      // u16 a sample; only with a cap
    var cut = Place.none        // ClassCut a class; only with a cap
    var rank = Place.none       // u32 a sample, in a given order

    init() {}

    init(_ cursor: inout Cursor, _ config: mest_config, classes: Int32) {
        let samples = int64(config.samples)
        let bits = (samples &+ 7) / 8
        count = cursor.take(samples)
        previous = cursor.take(bits)
        learned = cursor.take(bits)
        seen = cursor.take(bits)
        removed = cursor.take(bits, if: config.phase1_epochs > 0 || config.sieves)
        queue = cursor.take(config.absentSamples &* 4, if: config.sieves)
        marginSum = cursor.take(samples &* 4, if: config.tracksMargin)
        marginCount = cursor.take(samples &* 2, if: config.tracksMargin)
        label = cursor.take(samples &* 2, if: config.remove_class_cap > 0)
        cut = cursor.take(int64(classes) &* int64(MemoryLayout<ClassCut>.stride), if: config.remove_class_cap > 0)
        rank = cursor.take(samples &* 4, if: config.forgetting_flags & UInt32(MEST_FORGETTING_ORDER) != 0)
    }
}

extension mest_config {
    var tracksMargin: Bool { forgetting_flags & UInt32(MEST_FORGETTING_MARGIN) != 0 }
}

/// One bit a sample.
struct Bits {
    let bytes: UnsafeMutablePointer<UInt8>
    subscript(_ i: Int) -> Bool {
        get { bytes[i &>> 3] & (1 &<< uint8(i & 7)) != 0 }
        nonmutating set {
            let bit: UInt8 = 1 &<< uint8(i & 7)
            if newValue { bytes[i &>> 3] |= bit } else { bytes[i &>> 3] &= ~bit }
        }
    }
}

/// Sums of margins, in the order of presentation.
struct Margins {
    let sum: UnsafeMutablePointer<Float>
    let count: UnsafeMutablePointer<UInt16>  // stays at the largest, and so does the sum

    func add(_ margin: Float, to i: Int) {
        if count[i] == .max { return }
        sum[i] += margin
        count[i] &+= 1
    }

    func mean(_ i: Int) -> Float? { count[i] == 0 ? nil : sum[i] / Float(int(count[i])) }
}

/// Classes of the samples, as far as they were presented, and what Selection notes of each class.
struct Classes {
    static let unknown = UInt16.max
    let label: UnsafeMutablePointer<UInt16>
    let cut: UnsafeMutablePointer<ClassCut>
    let count: Int
}

/// Of a class: the number (SampleOrder) of the first sample that stays, and what finding it needs.
struct ClassCut {
    var first: UInt64
    var rank: UInt32
    var counted: UInt32
}

struct Forgetting {
    static let most: UInt8 = 254
    static let never = UInt8(MEST_NEVER_LEARNED)

    let samples: Int
    let count: UnsafeMutablePointer<UInt8>
    let previous: Bits
    let learned: Bits
    let seen: Bits
    let removed: Bits?
    let queue: UnsafeMutablePointer<UInt32>?
    let margins: Margins?
    let classes: Classes?
    let ranks: UnsafeMutablePointer<UInt32>?

    init?(_ model: Model) {
        let places = model.state.pointee.plan.counts
        if !places.count.exists { return nil }
        samples = int(model.config.samples)
        count = model.at(places.count, UInt8.self)
        previous = Bits(bytes: model.at(places.previous, UInt8.self))
        learned = Bits(bytes: model.at(places.learned, UInt8.self))
        seen = Bits(bytes: model.at(places.seen, UInt8.self))
        removed = places.removed.exists ? Bits(bytes: model.at(places.removed, UInt8.self)) : nil
        queue = places.queue.exists ? model.at(places.queue, UInt32.self) : nil
        margins = places.marginSum.exists
            ? Margins(sum: model.floats(places.marginSum), count: model.at(places.marginCount, UInt16.self)) : nil
        classes = places.label.exists
            ? Classes(
                label: model.at(places.label, UInt16.self), cut: model.at(places.cut, ClassCut.self),
                count: int(model.state.pointee.plan.last.pointee.channels)) : nil
        ranks = places.rank.exists ? model.at(places.rank, UInt32.self) : nil
    }

    /// Once, in a new model, whose block is zero.
    func begin() {
        guard let classes else { return }
        for i in 0..<samples { classes.label[i] = Classes.unknown }
    }

    /// One answer of one sample. Returns whether it was forgotten: correct before, wrong now.
    func observe(_ i: Int, correct: Bool) -> Bool {
        let forgotten = previous[i] && !correct
        if forgotten && count[i] < Forgetting.most { count[i] &+= 1 }
        if correct { learned[i] = true }
        seen[i] = true
        previous[i] = correct
        return forgotten
    }

    /// What the API tells of a sample: 255 when seen and never correct, nothing of who has left.
    func reported(_ i: Int) -> UInt8 {
        if !inTraining(i) { return 0 }
        return seen[i] && !learned[i] ? Forgetting.never : count[i]
    }

    func inTraining(_ i: Int) -> Bool { !(removed?[i] ?? false) }

    var training: Int {
        guard removed != nil else { return samples }
        var n = 0
        for i in 0..<samples where inTraining(i) { n &+= 1 }
        return n
    }

    /// Whether there is anything to go by: an answer that was correct, or an order.
    func knows(_ orderGiven: Bool) -> Bool {
        if orderGiven { return true }
        for i in 0..<samples where learned[i] && inTraining(i) { return true }
        return false
    }

    /// Counting begins anew. Of who has left for good it stays what the order goes by.
    func clear() {
        for i in 0..<samples {
            previous[i] = false
            if queue == nil && !inTraining(i) { continue }
            learned[i] = false
            seen[i] = false
            count[i] = 0
            margins?.sum[i] = 0
            margins?.count[i] = 0
        }
    }
}

extension Model {
    func forgettingReport(_ forgetting: Forgetting) -> mest_forgetting_report {
        var report = mest_forgetting_report()
        report.struct_size = uint32(MemoryLayout<mest_forgetting_report>.size)
        report.samples = config.samples
        withUnsafeMutablePointer(to: &report.histogram) { tuple in
            let histogram = UnsafeMutableRawPointer(tuple).assumingMemoryBound(to: UInt32.self)
            for i in 0..<forgetting.samples where forgetting.learned[i] && forgetting.inTraining(i) {
                histogram[min(int(forgetting.count[i]), lastBin)] &+= 1
            }
        }
        for i in 0..<forgetting.samples where forgetting.inTraining(i) {
            if forgetting.seen[i] { report.seen &+= 1 }
            if !forgetting.learned[i] { continue }
            report.learned &+= 1
            if forgetting.count[i] == 0 { report.unforgettable &+= 1 }
        }
        report.never_learned = report.seen &- report.learned
        report.training = uint32(forgetting.training)
        report.phase = state.pointee.phase
        report.events = state.pointee.forgotten
        report.events_epoch = state.pointee.forgottenInEpoch
        report.presentations = state.pointee.presentations
        report.presentations_saved = state.pointee.presentationsSaved
        return report
    }
}

private let lastBin = int(MEST_FORGETTING_BINS) &- 1
