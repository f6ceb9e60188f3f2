// swift-tools-version: 6.1
// SPDX-License-Identifier: Apache-2.0
//
// libmest: an Embedded Swift engine and C kernels behind the C API of include/mest.h.
//
//   swift build -c release                             the product: libmest.so
//   swift build -c release --traits OpenMP             with OpenMP's threads instead of its own
//   swift build -c release --disable-default-traits    without threads
//   MEST_HOSTED=1 swift test --scratch-path .build/hosted
//
// An Embedded module cannot be imported by tests.  With MEST_HOSTED set the same sources are compiled
// as ordinary Swift, so that Tests/MestTests can look inside.
import PackageDescription

let hosted = Context.environment["MEST_HOSTED"] != nil
// Sanitizer runtimes leave symbols for the program to define.
let sanitized = Context.environment["MEST_SANITIZED"] != nil

let kernelSettings: [CSetting] = [
    // Contraction off: every rounding is written down in the source, the same for every target.
    .unsafeFlags(["-std=c11", "-ffp-contract=off", "-fno-math-errno", "-fvisibility=hidden", "-Wall", "-Wextra",
                  // OpenMP puts file names into the product: not those of the machine that built it.
                  "-ffile-prefix-map=\(Context.packageDirectory)/="]),
    // The checks of sanitizers make the templates many times as long: -O3 takes minutes a file.  Debug builds are those
    // of packages that depend on this one: they want their own code to be debugged, and training as fast as ever.
    .unsafeFlags([sanitized ? "-O1" : "-O3"], hosted ? .when(configuration: .release) : nil),
    .define("MESTK_THREADS", .when(traits: ["Threads"])),
    .unsafeFlags(["-fopenmp"], .when(traits: ["OpenMP"])),
]

// One module, no heap: the compiler refuses what would allocate.
let engineSettings: [SwiftSetting] = hosted ? [] : [
    .enableExperimentalFeature("Embedded"),
    .unsafeFlags([
        "-wmo",
        "-Xfrontend", "-no-allocations",
        "-Xfrontend", "-function-sections",
        "-Xfrontend", "-disable-stack-protector",
    ]),
    // Unoptimised, variables that local functions share would be allocated.
    .unsafeFlags(["-O"], .when(configuration: .debug)),
]

func linker(_ arguments: String...) -> [String] { arguments.flatMap { ["-Xlinker", $0] } }

let engineLinking: [LinkerSetting] = hosted ? [] : [
    .unsafeFlags(["-use-ld=lld"] + linker(
        "-soname=libmest.so.0",
        "--version-script=\(Context.packageDirectory)/packaging/mest.map", "--no-undefined-version",
        "--gc-sections", "-z", "nodelete")),
] + (sanitized ? [] : [.unsafeFlags(linker("-z", "defs"))])

let package = Package(
    name: "libmest",
    products: [
        .library(name: "mest", type: .dynamic, targets: ["Mest"]),
        .library(name: "mest-static", type: .static, targets: ["Mest"]),
        // mest.h as a module, for packages that link an installed libmest (docs/swift.md).
        .library(name: "CMest", targets: ["CMest"]),
    ],
    traits: [
        .default(enabledTraits: ["Threads"]),
        .trait(name: "Threads", description: "Run the kernels' chunks on threads of the library's own (POSIX)"),
        .trait(name: "OpenMP", description: "Run them by OpenMP (libomp)"),
    ],
    targets: [
        .systemLibrary(name: "CMest"),
        .target(
            name: "CMestKernels",
            cSettings: kernelSettings,
            linkerSettings: [.linkedLibrary("omp5", .when(traits: ["OpenMP"]))]),
        .target(
            name: "Mest",
            dependencies: ["CMest", "CMestKernels"],
            swiftSettings: engineSettings,
            linkerSettings: engineLinking),
    ] + (hosted ? [
        .testTarget(
            name: "MestTests",
            dependencies: ["Mest", "CMest", "CMestKernels"],
            linkerSettings: [.unsafeFlags(["-use-ld=lld"])]),
    ] : []),
    swiftLanguageModes: [.v6],
    cLanguageStandard: .c11
)
