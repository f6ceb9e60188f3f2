/*
 * mest.hpp - libmest for C++20: mest.h with owners, spans and exceptions.
 *
 *     #include <mest.hpp>
 *
 *     const mest_layer layers[] = {
 *         mest::input(1, 8, 8),
 *         mest::conv2d(32, 3, {.padding = 1, .density = 1, .bias = false}),
 *         mest::batch_norm(), mest::relu(), mest::flatten(),
 *         mest::linear(10),
 *     };
 *     mest::Config config;
 *     config.batch = 32;  config.samples = 1797;  config.epochs = 20;
 *     config.density = 0.1f;  config.method = MEST_METHOD_EMS;
 *     config.learning_rate = 0.05f;  config.momentum = 0.9f;
 *
 *     std::uint64_t bytes = mest::plan(config, layers).total_bytes;        // known beforehand
 *     mest::Model model(config, layers);
 *     mest_step_report report = model.step({.x = x, .labels = labels, .ids = ids});
 *
 * A layer of words over the C API, all of it in this file, and mest.h stays the manual: structs, constants
 * and what every function does are as said there.  What is different:
 *
 * Needs      C++20 (std::span, designated initializers), <mest.h> beside it, and to be linked with libmest
 *            as a C program is.  No run-time type information.
 * Errors     A failed call throws mest::Error: status() is the code of mest.h, message() says what to change.
 *            All calls fail through one function, mest::failed().  Compiled with -fno-exceptions it is
 *            declared only, and the program defines it:
 *                [[noreturn]] void mest::failed(const mest::Error &error) { log(error.what()); reset(); }
 *            Who wants to go on after an error without exceptions calls the C function with model.get().
 * Sizes      come from the spans and are checked: a span of a wrong size is MEST_ERR_ARGUMENT.
 * Memory     Nothing here allocates but what creating a model does, exactly plan().total_bytes, and what the
 *            implementation does for an exception in flight.
 * Callbacks  are an object of yours in a mest::Env.  No exception crosses C: one thrown in a callback is
 *            kept, the C call ends, and then it leaves the C++ call that was running.
 * Threads    As in mest.h: one model, one thread at a time; cancel() from any.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEST_HPP
#define MEST_HPP

#if !(defined(_MSVC_LANG) ? _MSVC_LANG >= 202002L : __cplusplus >= 202002L)
#  error "mest.hpp needs C++20: compile with -std=c++20, or in CMake target_compile_features(program PRIVATE cxx_std_20)"
#endif

#include "mest.h"

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <optional>
#include <span>
#include <string_view>
#include <type_traits>
#include <utility>

/* Two kinds of programs, two names for the linker: a program may have files of both. */
#if defined(__cpp_exceptions)
#  define MEST_HPP_KIND throwing
#else
#  define MEST_HPP_KIND not_throwing
#endif

namespace mest {
inline namespace MEST_HPP_KIND {

/* ================================================================================= errors === */

/* A call that failed.  Allocates nothing: the text is inside. */
class Error : public std::exception {
public:
    Error(mest_status status, const char *message) noexcept : status_(status)
    {
        const int name = std::snprintf(text_, sizeof text_, "%s: ", mest_status_string(status));
        message_ = name < 0 ? 0 : name;
        std::snprintf(text_ + message_, sizeof text_ - static_cast<std::size_t>(message_), "%s", message);
    }

    /* MEST_ERR_*. */
    mest_status status() const noexcept { return status_; }
    /* What went wrong and what to change, one line: that of mest_last_error(). */
    const char *message() const noexcept { return text_ + message_; }
    /* The same behind the name of the status: "MEST_ERR_SHAPE: layer 3 (...) ...". */
    const char *what() const noexcept override { return text_; }

private:
    mest_status status_;
    int message_ = 0;
    char text_[288];
};

/* Where every failed call ends; see Errors above. */
#if defined(__cpp_exceptions)
[[noreturn]] inline void failed(const Error &error) { throw error; }
#else
[[noreturn]] void failed(const Error &error);
#endif

/* ===================================================================== structs and layers === */

/* A struct of mest.h with its struct_size; all else is zero, the default. */
template <class Struct>
constexpr Struct sized() noexcept
{
    Struct value{};
    value.struct_size = sizeof(Struct);
    return value;
}

/* mest_config as MEST_CONFIG_INIT makes it. */
struct Config : mest_config {
    constexpr Config() noexcept : mest_config(sized<mest_config>()) { abi_version = MEST_ABI_VERSION; }
};

/* A number of rows and columns: 3, or {3, 1}. */
struct Pair {
    std::uint32_t rows, columns;
    constexpr Pair(std::uint32_t both) noexcept : rows(both), columns(both) {}
    constexpr Pair(std::uint32_t rows_, std::uint32_t columns_) noexcept : rows(rows_), columns(columns_) {}
};

/* What a layer may have beyond what it must, in this order: mest::linear(10, {.density = 1, .name = "out"}).
 * What is left out is as in mest_layer.  `from` counts as mest_layer.from does: 0 is the layer before. */
struct Options {
    std::string_view name = {};
    std::int32_t from = 0;
};
struct Weights {
    float density = 0;
    std::int32_t scheme = MEST_SCHEME_DEFAULT;
    bool bias = true;
    std::string_view name = {};
    std::int32_t from = 0;
};
struct Convolution {
    Pair stride = 1;
    Pair padding = 0;
    float density = 0;
    std::int32_t scheme = MEST_SCHEME_DEFAULT;
    bool bias = true;
    std::uint32_t groups = 1;
    std::string_view name = {};
    std::int32_t from = 0;
};
struct Normalisation {
    float momentum = 0;
    float epsilon = 0;
    bool affine = true;
    std::string_view name = {};
    std::int32_t from = 0;
};
struct Window {
    Pair stride = 0; /* 0: the kernel */
    Pair padding = 0;
    std::string_view name = {};
    std::int32_t from = 0;
};

namespace detail {

/* A name that does not fit is an error, in a constant one of the compiler: mest.h would cut it. */
constexpr mest_layer layer(std::int32_t kind, std::string_view name, std::int32_t from)
{
    mest_layer made = sized<mest_layer>();
    made.kind = kind;
    made.from = from;
    if (name.size() >= MEST_NAME_BYTES) failed(Error(MEST_ERR_ARGUMENT, "the name of a layer has at most 23 bytes"));
    for (std::size_t i = 0; i < name.size(); i++) made.name[i] = name[i];
    return made;
}

constexpr void window(mest_layer &made, Pair kernel, Pair stride, Pair padding) noexcept
{
    made.kernel_h = kernel.rows, made.kernel_w = kernel.columns;
    made.stride_h = stride.rows, made.stride_w = stride.columns;
    made.pad_h = padding.rows, made.pad_w = padding.columns;
}

constexpr mest_layer pool(std::int32_t kind, Pair kernel, const Window &options)
{
    mest_layer made = layer(kind, options.name, options.from);
    window(made, kernel, options.stride, options.padding);
    return made;
}

} // namespace detail

/* Samples of shape [channels][height][width]; exactly one, the first. */
constexpr mest_layer input(std::uint32_t channels, std::uint32_t height = 1, std::uint32_t width = 1,
                           std::string_view name = {})
{
    mest_layer made = detail::layer(MEST_LAYER_INPUT, name, 0);
    made.channels = channels, made.height = height, made.width = width;
    return made;
}

constexpr mest_layer linear(std::uint32_t features, const Weights &options = {})
{
    mest_layer made = detail::layer(MEST_LAYER_LINEAR, options.name, options.from);
    made.channels = features;
    made.density = options.density, made.scheme = options.scheme;
    if (!options.bias) made.flags = MEST_FLAG_NO_BIAS;
    return made;
}

constexpr mest_layer conv2d(std::uint32_t channels, Pair kernel, const Convolution &options = {})
{
    mest_layer made = detail::layer(MEST_LAYER_CONV2D, options.name, options.from);
    made.channels = channels, made.groups = options.groups;
    detail::window(made, kernel, options.stride, options.padding);
    made.density = options.density, made.scheme = options.scheme;
    if (!options.bias) made.flags = MEST_FLAG_NO_BIAS;
    return made;
}

constexpr mest_layer batch_norm(const Normalisation &options = {})
{
    mest_layer made = detail::layer(MEST_LAYER_BATCH_NORM, options.name, options.from);
    made.momentum = options.momentum, made.epsilon = options.epsilon;
    if (!options.affine) made.flags = MEST_FLAG_NO_AFFINE;
    return made;
}

constexpr mest_layer relu(const Options &options = {}) { return detail::layer(MEST_LAYER_RELU, options.name, options.from); }

constexpr mest_layer max_pool(Pair kernel, const Window &options = {})
{
    return detail::pool(MEST_LAYER_MAX_POOL, kernel, options);
}

constexpr mest_layer avg_pool(Pair kernel, const Window &options = {})
{
    return detail::pool(MEST_LAYER_AVG_POOL, kernel, options);
}

constexpr mest_layer global_avg_pool(const Options &options = {})
{
    return detail::layer(MEST_LAYER_GLOBAL_AVG_POOL, options.name, options.from);
}

/* options.from + with, the residual connection: with is counted as mest_layer.with is, 0 is refused. */
constexpr mest_layer add(std::int32_t with, const Options &options = {})
{
    mest_layer made = detail::layer(MEST_LAYER_ADD, options.name, options.from);
    made.with = with;
    return made;
}

constexpr mest_layer flatten(const Options &options = {})
{
    return detail::layer(MEST_LAYER_FLATTEN, options.name, options.from);
}

constexpr mest_layer dropout(float rate, const Options &options = {})
{
    mest_layer made = detail::layer(MEST_LAYER_DROPOUT, options.name, options.from);
    made.rate = rate;
    return made;
}

/* ============================================================================== callbacks === */

namespace detail {

/* Runs what is the caller's inside a C call, and keeps what it throws until that has returned. */
class Keeper {
public:
    /* 0, or what stops the C call: what `body` returns, unless void, or 1 when it throws. */
    template <class Body>
    std::int32_t run(Body &&body) noexcept
    {
#if defined(__cpp_exceptions)
        try {
            return result(body);
        } catch (...) {
            if (!thrown_) thrown_ = std::current_exception();
            return 1;
        }
#else
        return result(body);
#endif
    }

    void rethrow()
    {
#if defined(__cpp_exceptions)
        if (thrown_) std::rethrow_exception(std::exchange(thrown_, nullptr));
#endif
    }

private:
    template <class Body>
    static std::int32_t result(Body &body)
    {
        if constexpr (std::is_void_v<decltype(body())>) return body(), 0;
        else return static_cast<std::int32_t>(body());
    }

#if defined(__cpp_exceptions)
    std::exception_ptr thrown_;
#endif
};

} // namespace detail

/* The chunks of parallel_for: work(i, worker) once for every i below count. */
class Work {
public:
    Work(void (*body)(void *, std::uint32_t, std::uint32_t), void *argument) noexcept : body_(body), argument_(argument) {}
    void operator()(std::uint32_t index, std::uint32_t worker) const { body_(argument_, index, worker); }

private:
    void (*body_)(void *, std::uint32_t, std::uint32_t);
    void *argument_;
};

/*
 * A model's surroundings: an object of yours that has some of
 *
 *     void progress(const mest_progress &)     or returning bool or int: other than 0 stops the call
 *     void log(std::int32_t level, const char *message)
 *     void *allocate(std::size_t size, std::size_t alignment)      both
 *     void release(void *block, std::size_t size) noexcept         or none
 *     void parallel_for(std::uint32_t count, mest::Work work) noexcept
 *
 * and is called as mest_env says.  What progress, log or allocate throw leaves the call of the model that was
 * running, in place of its own error: thrown by progress or allocate it has stopped the call; thrown by log the
 * call has done its work, but no model is created.
 * Env and object outlive the model and stay where they are.  One Env, one model at a time.
 */
class Env {
public:
    template <class Handler>
    explicit Env(Handler &handler) noexcept : handler_(const_cast<void *>(static_cast<const void *>(&handler)))
    {
        constexpr bool progress = requires(const mest_progress &p) { handler.progress(p); };
        constexpr bool log = requires(std::int32_t level, const char *text) { handler.log(level, text); };
        constexpr bool allocate = requires(std::size_t n) { static_cast<void *>(handler.allocate(n, n)); };
        constexpr bool release = requires(void *block, std::size_t n) { handler.release(block, n); };
        constexpr bool parallel = requires(Work work) { handler.parallel_for(std::uint32_t{}, work); };
        static_assert(progress || log || allocate || parallel, "mest::Env: the object has none of the functions");
        static_assert(allocate == release, "mest::Env: allocate and release go together");
        static_assert(progress || !requires { &Handler::progress; }, "mest::Env: void progress(const mest_progress &)");
        static_assert(log || !requires { &Handler::log; }, "mest::Env: void log(std::int32_t, const char *)");
        static_assert(parallel || !requires { &Handler::parallel_for; }, "mest::Env: void parallel_for(std::uint32_t, mest::Work)");
        env_.user = this;
        if constexpr (progress)
            env_.progress = [](const mest_progress *now, void *user) -> std::int32_t {
                return of(user).kept_.run([&] { return as<Handler>(user).progress(*now); });
            };
        if constexpr (log)
            env_.log = [](std::int32_t level, const char *message, void *user) {
                of(user).kept_.run([&]() -> void { as<Handler>(user).log(level, message); });
            };
        if constexpr (allocate) {
            env_.allocate = [](std::size_t size, std::size_t alignment, void *user) -> void * {
                void *block = nullptr;
                of(user).kept_.run([&]() -> void { block = as<Handler>(user).allocate(size, alignment); });
                return block;
            };
            env_.release = [](void *block, std::size_t size, void *user) noexcept { as<Handler>(user).release(block, size); };
        }
        if constexpr (parallel)
            env_.parallel_for = [](std::uint32_t count, void (*body)(void *, std::uint32_t, std::uint32_t), void *argument,
                                   void *user) noexcept { as<Handler>(user).parallel_for(count, Work(body, argument)); };
    }
    Env(const Env &) = delete;
    Env &operator=(const Env &) = delete;

    const mest_env *get() const noexcept { return &env_; }
    /* Throws what a callback has thrown, if one has.  Model does so after every call; for who calls C. */
    void rethrow() { kept_.rethrow(); }

private:
    static Env &of(void *user) noexcept { return *static_cast<Env *>(user); }
    template <class Handler>
    static Handler &as(void *user) noexcept
    {
        return *static_cast<Handler *>(of(user).handler_);
    }

    void *handler_;
    detail::Keeper kept_;
    mest_env env_ = sized<mest_env>();
};

/*
 * Where checkpoints are kept: an object of yours that has
 *
 *     void read(std::uint32_t slot, std::uint64_t offset, std::span<std::byte> bytes)
 *     void write(std::uint32_t slot, std::uint64_t offset, std::span<const std::byte> bytes)
 *     void sync(std::uint32_t slot)
 *
 * as mest_io says; instead of void they may return 0, or an error.  What they throw leaves save() or load().
 * minimum_updates: a save sooner after the last does nothing.
 */
class Io {
public:
    template <class Device>
    explicit Io(Device &device, std::uint32_t minimum_updates = 0) noexcept
        : device_(const_cast<void *>(static_cast<const void *>(&device)))
    {
        io_.minimum_updates = minimum_updates;
        io_.user = this;
        io_.read = [](std::uint32_t slot, std::uint64_t offset, void *bytes, std::size_t count, void *user) -> std::int32_t {
            const std::span into(static_cast<std::byte *>(bytes), count);
            return of(user).kept_.run([&] { return as<Device>(user).read(slot, offset, into); });
        };
        io_.write = [](std::uint32_t slot, std::uint64_t offset, const void *bytes, std::size_t count,
                       void *user) -> std::int32_t {
            const std::span from(static_cast<const std::byte *>(bytes), count);
            return of(user).kept_.run([&] { return as<Device>(user).write(slot, offset, from); });
        };
        io_.sync = [](std::uint32_t slot, void *user) -> std::int32_t {
            return of(user).kept_.run([&] { return as<Device>(user).sync(slot); });
        };
    }
    Io(const Io &) = delete;
    Io &operator=(const Io &) = delete;

    const mest_io *get() const noexcept { return &io_; }
    void rethrow() { kept_.rethrow(); }

private:
    static Io &of(void *user) noexcept { return *static_cast<Io *>(user); }
    template <class Device>
    static Device &as(void *user) noexcept
    {
        return *static_cast<Device *>(of(user).device_);
    }

    void *device_;
    detail::Keeper kept_;
    mest_io io_ = sized<mest_io>();
};

/* ================================================================================== model === */

/* Samples for step and evaluate; how many, x says.  labels or targets as the loss asks; ids, or none. */
struct Batch {
    std::span<const float> x = {};
    std::span<const std::int32_t> labels = {};
    std::span<const float> targets = {};
    std::span<const std::uint32_t> ids = {};
};

/* The connections of a sparse layer: mest_csr.  momentum is empty when there is none. */
struct Csr {
    std::uint32_t rows = 0;
    std::uint32_t columns = 0;
    std::uint32_t capacity = 0;
    std::span<const std::uint32_t> row_start = {}; /* rows + 1 */
    std::span<const std::uint16_t> column = {};
    std::span<const float> value = {};
    std::span<const float> momentum = {};
};

namespace detail {

template <class T>
constexpr T *or_null(std::span<T> span) noexcept
{
    return span.empty() ? nullptr : span.data();
}

template <class T>
constexpr void size_all(std::span<T> structs) noexcept
{
    for (T &one : structs) one.struct_size = sizeof(T);
}

[[noreturn]] inline void wrong_size(const char *what, std::uint64_t has, std::uint64_t wanted, const char *why)
{
    char text[160];
    std::snprintf(text, sizeof text, "%s has size %llu, give %llu: %s", what, static_cast<unsigned long long>(has),
                  static_cast<unsigned long long>(wanted), why);
    failed(Error(MEST_ERR_ARGUMENT, text));
}

inline void require(const char *what, std::uint64_t has, std::uint64_t wanted, const char *why)
{
    if (has != wanted) wrong_size(what, has, wanted, why);
}

inline void check_plain(mest_status status)
{
    if (status < 0) failed(Error(status, mest_last_error(nullptr)));
}

} // namespace detail

/* Every byte beforehand: mest_plan().  out_layers: as many as layers, or none.
 * Error: also MEST_ERR_BUDGET, whose numbers the C function returns as well. */
inline mest_plan_report plan(const mest_config &config, std::span<const mest_layer> layers,
                             std::span<mest_layer_plan> out_layers = {})
{
    if (!out_layers.empty()) detail::require("out_layers", out_layers.size(), layers.size(), "one a layer");
    detail::size_all(out_layers);
    auto report = sized<mest_plan_report>();
    detail::check_plain(mest_plan(&config, layers.data(), static_cast<std::uint32_t>(layers.size()), &report,
                                  detail::or_null(out_layers)));
    return report;
}

/* A model and its memory: moved, not copied.  Without a model (after a move, release(), by Model()) every call
 * is MEST_ERR_ARGUMENT.  The functions are those of mest.h, and so are their errors. */
class Model {
public:
    Model() noexcept = default;

    /* In one block of plan().total_bytes, from env's allocate or posix_memalign. */
    Model(const mest_config &config, std::span<const mest_layer> layers) : Model(config, layers, nullptr) {}
    Model(const mest_config &config, std::span<const mest_layer> layers, Env &env) : Model(config, layers, &env) {}

    /* In this block, which stays the caller's and outlives the model: plan().total_bytes, aligned to
     * plan().alignment.  No allocation at all. */
    static Model in(std::span<std::byte> block, const mest_config &config, std::span<const mest_layer> layers)
    {
        return in(block, config, layers, nullptr);
    }
    static Model in(std::span<std::byte> block, const mest_config &config, std::span<const mest_layer> layers, Env &env)
    {
        return in(block, config, layers, &env);
    }

    /* Takes over a model that C has made (which stays the caller's when this throws). */
    explicit Model(mest_model *model) : model_(model) { learn_sizes(); }

    Model(Model &&other) noexcept { swap(other); }
    Model &operator=(Model &&other) noexcept
    {
        Model(std::move(other)).swap(*this);
        return *this;
    }
    Model(const Model &) = delete;
    Model &operator=(const Model &) = delete;
    ~Model() { mest_model_destroy(model_); }

    void swap(Model &other) noexcept
    {
        std::swap(model_, other.model_);
        std::swap(env_, other.env_);
        std::swap(inputs_, other.inputs_);
        std::swap(outputs_, other.outputs_);
    }

    explicit operator bool() const noexcept { return model_ != nullptr; }
    /* For the functions of mest.h. */
    mest_model *get() const noexcept { return model_; }
    /* Gives the model away: whoever has it now calls mest_model_destroy(). */
    mest_model *release() noexcept
    {
        Model given(std::move(*this));
        return std::exchange(given.model_, nullptr);
    }

    std::uint32_t inputs() const noexcept { return inputs_; }   /* floats in one sample              */
    std::uint32_t outputs() const noexcept { return outputs_; } /* floats that the network makes of it */

    mest_plan_report plan(std::span<mest_layer_plan> out_layers = {}) const
    {
        auto report = sized<mest_plan_report>();
        if (!out_layers.empty()) {
            check(mest_model_plan(model_, &report, nullptr));
            detail::require("out_layers", out_layers.size(), report.layers, "one a layer");
        }
        detail::size_all(out_layers);
        check(mest_model_plan(model_, &report, detail::or_null(out_layers)));
        return report;
    }

    /* ---------------------------------------------------------------------------- training --- */

    mest_step_report step(const Batch &batch)
    {
        mest_step_report report;
        step(batch, report);
        return report;
    }
    /* The same; report is filled after MEST_ERR_DIVERGED, too: MEST_EVENT_RETURNED and the epoch that is next. */
    void step(const Batch &batch, mest_step_report &report)
    {
        report = sized<mest_step_report>();
        const mest_batch given = batch_of(batch);
        check(mest_model_step(model_, &given, &report));
    }

    /* mest_model_step_slice(): nothing while there is more to do, then what step() returns. */
    std::optional<mest_step_report> step_slice(const Batch &batch, std::uint64_t quantum)
    {
        auto report = sized<mest_step_report>();
        const mest_batch given = batch_of(batch);
        const mest_status status = mest_model_step_slice(model_, &given, quantum, &report);
        check(status);
        if (status == MEST_MORE) return std::nullopt;
        return report;
    }

    mest_epoch_report begin_epoch()
    {
        mest_epoch_report report;
        begin_epoch(report);
        return report;
    }
    void begin_epoch(mest_epoch_report &report)
    {
        report = sized<mest_epoch_report>();
        check(mest_model_begin_epoch(model_, &report));
    }

    mest_mutation_report mutate()
    {
        auto report = sized<mest_mutation_report>();
        check(mest_model_mutate(model_, &report));
        return report;
    }

    /* The last mutation.  out_layers: one a sparse layer, or none. */
    mest_mutation_report mutation(std::span<mest_mutation_layer> out_layers = {}) const
    {
        auto report = sized<mest_mutation_report>();
        detail::size_all(out_layers);
        check(mest_model_mutation(model_, &report, detail::or_null(out_layers), static_cast<std::uint32_t>(out_layers.size())));
        return report;
    }

    /* -------------------------------------------------------------------------- forgetting --- */

    /* out_counts: one a sample of config.samples, or none. */
    mest_forgetting_report forgetting(std::span<std::uint8_t> out_counts = {}) const
    {
        auto report = sized<mest_forgetting_report>();
        check(mest_model_forgetting(model_, &report, detail::or_null(out_counts), out_counts.size()));
        return report;
    }

    /* How many samples a rule would keep, and which: out_ids, or none.  Without a rule: the training set now. */
    std::uint64_t select(std::span<std::uint32_t> out_ids = {}, const mest_selection &rule = sized<mest_selection>()) const
    {
        std::uint64_t count = 0;
        check(mest_model_select(model_, &rule, detail::or_null(out_ids), out_ids.size(), &count));
        return count;
    }

    std::uint64_t order(std::span<std::uint32_t> out_ids = {}) const
    {
        std::uint64_t count = 0;
        check(mest_model_order(model_, detail::or_null(out_ids), out_ids.size(), &count));
        return count;
    }

    void set_order(std::span<const std::uint32_t> ids)
    {
        check(mest_model_order_set(model_, detail::or_null(ids), ids.size()));
    }

    /* ------------------------------------------------------------------------------ use it --- */

    /* out: at least outputs() floats for every inputs() floats of x.  flags: MEST_PREDICT_*. */
    void predict(std::span<const float> x, std::span<float> out, std::uint32_t flags = 0)
    {
        check(mest_model_predict(model_, x.data(), samples_in(x), flags, out.data(), out.size()));
    }

    mest_evaluation evaluate(const Batch &batch)
    {
        auto result = sized<mest_evaluation>();
        const mest_batch given = batch_of(batch);
        check(mest_model_evaluate(model_, &given, &result));
        return result;
    }

    /* ----------------------------------------------------------------------------- tensors --- */

    /* Floats in a tensor (MEST_TENSOR_*) of a layer of the description. */
    std::uint64_t tensor_size(std::uint32_t layer, std::int32_t tensor) const
    {
        std::uint64_t count = 0;
        check(mest_model_tensor_size(model_, layer, tensor, &count));
        return count;
    }
    /* Copies a tensor out, or values in: exactly tensor_size() floats. */
    void tensor(std::uint32_t layer, std::int32_t tensor, std::span<float> out) const
    {
        check(mest_model_tensor_get(model_, layer, tensor, out.data(), out.size()));
    }
    void set_tensor(std::uint32_t layer, std::int32_t tensor, std::span<const float> values)
    {
        check(mest_model_tensor_set(model_, layer, tensor, values.data(), values.size()));
    }

    /* What csr() needs as a buffer: 0 where the layer is shown as it lies in memory. */
    std::uint64_t csr_bytes(std::uint32_t layer) const { return csr_of(layer, {}).buffer_bytes; }
    /* The connections of a sparse layer.  buffer: csr_bytes(), 4-byte aligned, into which the spans then lead; else
     * they lead into the model, and are valid until it mutates, is set or ends. */
    Csr csr(std::uint32_t layer, std::span<std::byte> buffer = {}) const
    {
        const mest_csr c = csr_of(layer, buffer);
        if (!c.row_start) detail::wrong_size("buffer", buffer.size(), c.buffer_bytes, "bytes, as csr_bytes() says");
        return {.rows = c.rows, .columns = c.columns, .capacity = c.capacity,
                .row_start = {c.row_start, c.rows + std::size_t{1}}, .column = {c.column, c.count},
                .value = {c.value, c.count}, .momentum = {c.momentum, c.momentum ? c.count : 0}};
    }
    /* Replaces connections and values; capacity is ignored. */
    void set_csr(std::uint32_t layer, const Csr &csr)
    {
        auto given = sized<mest_csr>();
        detail::require("row_start", csr.row_start.size(), csr.rows + std::uint64_t{1}, "rows + 1");
        detail::require("value", csr.value.size(), csr.column.size(), "one a column");
        if (!csr.momentum.empty()) detail::require("momentum", csr.momentum.size(), csr.column.size(), "one a column, or none");
        given.rows = csr.rows, given.columns = csr.columns;
        given.count = static_cast<std::uint32_t>(csr.column.size());
        given.row_start = csr.row_start.data();
        given.column = csr.column.data();
        given.value = csr.value.data();
        given.momentum = detail::or_null(csr.momentum);
        check(mest_model_csr_set(model_, layer, &given));
    }

    /* ------------------------------------------------------------------------- checkpoints --- */

    mest_checkpoint_report save(const char *path)
    {
        auto report = sized<mest_checkpoint_report>();
        check(mest_model_save_file(model_, path, &report));
        return report;
    }
    mest_checkpoint_report save(Io &io)
    {
        auto report = sized<mest_checkpoint_report>();
        check(mest_model_save(model_, io.get(), &report), &io);
        return report;
    }
    /* flags: MEST_LOAD_*. */
    mest_checkpoint_report load(const char *path, std::uint32_t flags = 0)
    {
        auto report = sized<mest_checkpoint_report>();
        check(mest_model_load_file(model_, path, flags, &report));
        return report;
    }
    mest_checkpoint_report load(Io &io, std::uint32_t flags = 0)
    {
        auto report = sized<mest_checkpoint_report>();
        check(mest_model_load(model_, io.get(), flags, &report), &io);
        return report;
    }

    /* Stops the running call, or the next long one, with MEST_ERR_CANCELLED.  From any thread or signal handler. */
    void cancel() const noexcept { mest_model_cancel(model_); }

private:
    Model(const mest_config &config, std::span<const mest_layer> layers, Env *env) : Model()
    {
        env_ = env;
        check(mest_model_create(&config, layers.data(), static_cast<std::uint32_t>(layers.size()), env ? env->get() : nullptr,
                                &model_));
        learn_sizes();
    }
    static Model in(std::span<std::byte> block, const mest_config &config, std::span<const mest_layer> layers, Env *env)
    {
        Model made;
        made.env_ = env;
        made.check(mest_model_create_in(&config, layers.data(), static_cast<std::uint32_t>(layers.size()),
                                        env ? env->get() : nullptr, block.data(), block.size(), &made.model_));
        made.learn_sizes();
        return made;
    }

    void learn_sizes()
    {
        if (!model_) return;
        auto report = sized<mest_plan_report>();
        check(mest_model_plan(model_, &report, nullptr));
        inputs_ = report.inputs, outputs_ = report.outputs;
    }

    void check(mest_status status, Io *io = nullptr) const
    {
        if (env_) env_->rethrow();
        if (io) io->rethrow();
        if (status >= 0) return;
        /* Where another thread's call is running, the model's text is that call's, and empty. */
        const char *text = model_ ? mest_last_error(model_) : "";
        failed(Error(status, *text ? text : mest_last_error(nullptr)));
    }

    std::uint32_t samples_in(std::span<const float> x) const
    {
        if (!inputs_) return 0;
        const std::uint64_t count = x.size() / inputs_;
        if (x.size() % inputs_) detail::wrong_size("x", x.size(), (count + 1) * inputs_, "whole samples");
        if (count > UINT32_MAX) detail::wrong_size("x", x.size(), std::uint64_t{UINT32_MAX} * inputs_, "the most samples of one call");
        return static_cast<std::uint32_t>(count);
    }

    mest_batch batch_of(const Batch &batch) const
    {
        auto given = sized<mest_batch>();
        if (!model_) return given; /* which C refuses */
        given.count = samples_in(batch.x);
        if (!batch.labels.empty()) detail::require("labels", batch.labels.size(), given.count, "one a sample of x");
        if (!batch.ids.empty()) detail::require("ids", batch.ids.size(), given.count, "one a sample of x");
        if (!batch.targets.empty())
            detail::require("targets", batch.targets.size(), std::uint64_t{given.count} * outputs_, "the outputs of each sample of x");
        given.x = batch.x.data();
        given.labels = detail::or_null(batch.labels);
        given.targets = detail::or_null(batch.targets);
        given.ids = detail::or_null(batch.ids);
        return given;
    }

    mest_csr csr_of(std::uint32_t layer, std::span<std::byte> buffer) const
    {
        auto csr = sized<mest_csr>();
        csr.buffer = detail::or_null(buffer);
        csr.buffer_bytes = buffer.size();
        check(mest_model_csr_get(model_, layer, &csr));
        return csr;
    }

    mest_model *model_ = nullptr;
    Env *env_ = nullptr;
    std::uint32_t inputs_ = 0, outputs_ = 0;
};

inline void swap(Model &a, Model &b) noexcept { a.swap(b); }

} // inline namespace
} // namespace mest

#undef MEST_HPP_KIND
#endif /* MEST_HPP */
