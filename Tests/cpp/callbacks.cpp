// SPDX-License-Identifier: Apache-2.0
// mest.hpp: callbacks.  What they throw leaves the call that was running, as it was thrown; the model is as before and
// stays usable; nothing is lost of the memory that a callback gave.
#include "support.h"

#include <new>
#include <stdexcept>

static const Data data;

struct Stop : std::runtime_error {
    int number;
    explicit Stop(int n) : std::runtime_error("stop"), number(n) {}
};

template <class Call>
static int stopped_by(Call &&call)
{
    try {
        call();
    } catch (const Stop &stop) {
        return stop.number;
    } catch (const mest::Error &error) {
        check(0, "%s in place of what was thrown", error.what());
    }
    return 0;
}

/* Throws when it is told to. */
struct Watch {
    int throw_at_stage = 0, stop_at_stage = 0;
    bool throw_at_log = false;
    int seen[8] = {}, logged = 0;

    bool progress(const mest_progress &now)
    {
        seen[now.stage]++;
        if (now.stage == throw_at_stage) throw Stop(now.stage);
        return now.stage == stop_at_stage;
    }
    void log(std::int32_t, const char *message)
    {
        logged += *message != 0;
        if (throw_at_log) throw Stop(100);
    }
};

static void call(mest::Model &model, int stage)
{
    std::vector<float> out(SAMPLES * CLASSES);
    switch (stage) {
    case MEST_STAGE_STEP: model.step(data.nth(0)); break;
    case MEST_STAGE_MUTATE: model.mutate(); break;
    case MEST_STAGE_PREDICT: model.predict(data.x, out); break;
    default: model.evaluate(data.all());
    }
}

static void progress_and_log()
{
    Watch watch;
    mest::Env env(watch);
    mest::Model first(small_config(), small_layers, env);
    mest::Model model(std::move(first)); /* the surroundings move with it */
    for (int stage = MEST_STAGE_STEP; stage <= MEST_STAGE_EVALUATE; stage++) {
        call(model, stage);
        check(watch.seen[stage] > 0, "stage %d was not seen", stage);
    }
    check(watch.logged > 0, "nothing was logged");
    const std::vector<float> before = outputs_of(model, data);
    for (int stage = MEST_STAGE_STEP; stage <= MEST_STAGE_EVALUATE; stage++) {
        watch.throw_at_stage = stage;
        check(stopped_by([&] { call(model, stage); }) == stage, "stage %d: what was thrown does not come out", stage);
        watch.throw_at_stage = 0;
        watch.stop_at_stage = stage;
        refused("progress returns true", MEST_ERR_CALLBACK, "", [&] { call(model, stage); });
        watch.stop_at_stage = 0;
        check(same(before, outputs_of(model, data)), "stage %d: the model is not as it was", stage);
    }
    /* log cannot stop a call: it has done its work. */
    const std::uint32_t mutations = model.mutation().mutations;
    watch.throw_at_log = true;
    check(stopped_by([&] { model.mutate(); }) == 100, "what log threw does not come out");
    watch.throw_at_log = false;
    check(model.mutation().mutations == mutations + 1, "log has stopped a mutation");
    model.mutate();
    check(model.mutation().mutations == mutations + 2, "a model goes on after what log threw");
}

/* By void functions, const objects, and for who calls C. */
static void other_forms()
{
    struct Silent {
        void progress(const mest_progress &now) const
        {
            if (now.stage == MEST_STAGE_PREDICT) throw Stop(5);
        }
    };
    const Silent silent;
    mest::Env env(silent);
    mest::Model model(small_config(), small_layers, env);
    check(model.step(data.nth(0)).count == 16, "void progress");
    std::vector<float> out(SAMPLES * CLASSES);
    check(mest_model_predict(model.get(), data.x.data(), SAMPLES, 0, out.data(), out.size()) == MEST_ERR_CALLBACK, "C: predict");
    check(stopped_by([&] { env.rethrow(); }) == 5, "rethrow after a call of C");
    env.rethrow();
    check(model.evaluate(data.all()).count == SAMPLES, "thrown once");
}

struct Pool {
    int blocks = 0;
    std::size_t bytes = 0;
    bool empty = false;

    void *allocate(std::size_t size, std::size_t alignment)
    {
        if (empty) throw std::bad_alloc();
        blocks++, bytes += size;
        return ::operator new(size, std::align_val_t{alignment});
    }
    void release(void *block, std::size_t size) noexcept
    {
        blocks--, bytes -= size;
        ::operator delete(block, std::align_val_t{64});
    }
};

static void memory()
{
    Pool pool;
    mest::Env env(pool);
    {
        const std::uint64_t planned = mest::plan(small_config(), small_layers).total_bytes;
        mest::Model model(small_config(), small_layers, env);
        check(pool.blocks == 1 && pool.bytes == planned, "one block of the planned size");
        check(model.plan().alignment == 64, "alignment: %u", model.plan().alignment);
        mest::Model other(small_config(), small_layers, env);
        check(pool.blocks == 2, "a second block");
        model = std::move(other);
        check(pool.blocks == 1, "the first block was given back");
    }
    check(pool.blocks == 0 && pool.bytes == 0, "all blocks were given back");
    pool.empty = true;
    bool thrown = false;
    try {
        mest::Model model(small_config(), small_layers, env);
    } catch (const std::bad_alloc &) {
        thrown = true;
    }
    check(thrown && pool.blocks == 0, "what allocate threw does not come out");
}

struct Loop {
    int calls = 0;
    std::uint32_t chunks = 0;
    void parallel_for(std::uint32_t count, mest::Work work) noexcept
    {
        calls++;
        for (std::uint32_t i = count; i-- > 0; chunks++) work(i, 0);
    }
};

static void loops()
{
    Loop loop;
    mest::Env env(loop);
    mest::Config config = small_config();
    config.threads = 2;
    mest::Model plain(config, small_layers), model(config, small_layers, env);
    for (std::uint32_t i = 0; i < 4; i++) {
        const mest_step_report a = plain.step(data.nth(i)), b = model.step(data.nth(i));
        check(std::memcmp(&a, &b, sizeof a) == 0, "step %u: the bits of other loops", i);
    }
    /* Whether work is worth a loop is the library's to say: a network this small may have none. */
    config.method = MEST_METHOD_STATIC;
    const std::vector<mest_layer> wide{mest::input(1024), mest::linear(1024, {.density = 1}), mest::linear(10, {.density = 1})};
    mest::Model large(config, wide, env);
    std::vector<float> x(16 * 1024, 0.5f);
    large.step({.x = x, .labels = data.nth(0).labels});
    check(loop.calls > 0 && loop.chunks > static_cast<std::uint32_t>(loop.calls), "parallel_for: %d calls, %u chunks", loop.calls, loop.chunks);
}

/* Two slots in memory; fails when it is told to. */
struct Device {
    std::array<std::vector<std::byte>, 2> slots;
    bool broken = false;
    int error = 0;
    int syncs = 0;

    void read(std::uint32_t slot, std::uint64_t offset, std::span<std::byte> bytes)
    {
        if (broken) throw Stop(7);
        std::memcpy(bytes.data(), slots[slot].data() + offset, bytes.size());
    }
    int write(std::uint32_t slot, std::uint64_t offset, std::span<const std::byte> bytes)
    {
        std::memcpy(slots[slot].data() + offset, bytes.data(), bytes.size());
        return error;
    }
    void sync(std::uint32_t) { syncs++; }
};

static void checkpoints()
{
    Device device;
    mest::Model model(small_config(), small_layers);
    for (auto &slot : device.slots) slot.resize(model.plan().checkpoint_bytes);
    mest::Io io(device);
    for (std::uint32_t i = 0; i < 3; i++) model.step(data.nth(i));
    const mest_checkpoint_report first = model.save(io), second = model.save(io);
    check(first.slot != second.slot && second.sequence == first.sequence + 1 && device.syncs == 4, "two slots");

    mest::Model other(small_config(), small_layers);
    const std::vector<float> before = outputs_of(other, data);
    device.broken = true;
    check(stopped_by([&] { other.load(io); }) == 7, "what read threw does not come out of load");
    check(stopped_by([&] { other.save(io); }) == 7, "what read threw does not come out of save");
    check(same(before, outputs_of(other, data)), "a load that failed changed the model");
    device.broken = false;
    device.error = 3;
    refused("write returns an error", MEST_ERR_IO, "", [&] { model.save(io); });
    device.error = 0;
    check(other.load(io).updates == 3 && same(outputs_of(model, data), outputs_of(other, data)), "load");
    mest::Io seldom(device, 1000);
    model.step(data.nth(3));
    check(model.save(seldom).slot == -1, "minimum_updates");
}

int main()
{
    progress_and_log();
    other_forms();
    memory();
    loops();
    checkpoints();
    return finish("cpp callbacks");
}
