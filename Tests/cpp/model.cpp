// SPDX-License-Identifier: Apache-2.0
// mest.hpp: layers are those of C; models are owned once; every call does what the C function does; spans of wrong
// sizes are refused before anything happens.
#include "support.h"

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>

static_assert(!std::is_copy_constructible_v<mest::Model> && !std::is_copy_assignable_v<mest::Model>);
static_assert(std::is_nothrow_move_constructible_v<mest::Model> && std::is_nothrow_move_assignable_v<mest::Model>);
static_assert(std::is_nothrow_copy_constructible_v<mest::Error> && std::is_base_of_v<std::exception, mest::Error>);
static_assert(sizeof(mest::Model) <= 3 * sizeof(void *) && sizeof(mest::Config) == sizeof(mest_config));

static const Data data;

static bool equal(const mest_layer &a, const mest_layer &b) { return std::memcmp(&a, &b, sizeof a) == 0; }

static mest_layer c_layer(std::int32_t kind)
{
    mest_layer layer;
    std::memset(&layer, 0, sizeof layer);
    layer.struct_size = sizeof layer;
    layer.kind = kind;
    return layer;
}

static void layers()
{
    mest_layer c = c_layer(MEST_LAYER_INPUT);
    c.channels = 3, c.height = 32, c.width = 16;
    std::strcpy(c.name, "pixels");
    check(equal(c, mest::input(3, 32, 16, "pixels")), "input");

    c = c_layer(MEST_LAYER_LINEAR);
    c.channels = 10, c.density = 0.25f, c.scheme = MEST_SCHEME_FAN_IN, c.flags = MEST_FLAG_NO_BIAS, c.from = 4;
    std::strcpy(c.name, "a name of 23 bytes: yes");
    check(equal(c, mest::linear(10, {.density = 0.25f, .scheme = MEST_SCHEME_FAN_IN, .bias = false,
                                     .name = "a name of 23 bytes: yes", .from = 4})), "linear");

    c = c_layer(MEST_LAYER_CONV2D);
    c.channels = 8, c.kernel_h = 3, c.kernel_w = 1, c.stride_h = 2, c.stride_w = 1, c.pad_h = c.pad_w = 1, c.groups = 8;
    check(equal(c, mest::conv2d(8, {3, 1}, {.stride = {2, 1}, .padding = 1, .groups = 8})), "conv2d");

    c = c_layer(MEST_LAYER_BATCH_NORM);
    c.momentum = 0.2f, c.epsilon = 1e-3f, c.flags = MEST_FLAG_NO_AFFINE;
    check(equal(c, mest::batch_norm({.momentum = 0.2f, .epsilon = 1e-3f, .affine = false})), "batch_norm");

    c = c_layer(MEST_LAYER_MAX_POOL);
    c.kernel_h = c.kernel_w = 3, c.stride_h = c.stride_w = 2, c.pad_h = 1;
    check(equal(c, mest::max_pool(3, {.stride = 2, .padding = {1, 0}})), "max_pool");
    c = c_layer(MEST_LAYER_AVG_POOL);
    c.kernel_h = c.kernel_w = 2;
    check(equal(c, mest::avg_pool(2)), "avg_pool");

    c = c_layer(MEST_LAYER_ADD);
    c.from = 3, c.with = MEST_FROM_INPUT;
    check(equal(c, mest::add(MEST_FROM_INPUT, {.from = 3})), "add");
    c = c_layer(MEST_LAYER_DROPOUT);
    c.rate = 0.5f;
    check(equal(c, mest::dropout(0.5f)), "dropout");
    check(equal(c_layer(MEST_LAYER_RELU), mest::relu()), "relu");
    check(equal(c_layer(MEST_LAYER_FLATTEN), mest::flatten()), "flatten");
    check(equal(c_layer(MEST_LAYER_GLOBAL_AVG_POOL), mest::global_avg_pool()), "global_avg_pool");

    mest_config init;
    const mest::Config config;
    check(mest_config_init(&init, sizeof init) == MEST_OK
              && std::memcmp(static_cast<const mest_config *>(&config), &init, sizeof init) == 0, "Config");
    const std::string long_name(MEST_NAME_BYTES, 'x');
    refused("a long name", MEST_ERR_ARGUMENT, "23 bytes", [&] { (void)mest::relu({.name = long_name}); });
}

/* A picture network with every helper is one that the library takes. */
static void pictures()
{
    const mest_layer network[] = {
        mest::input(2, 8, 8),
        mest::conv2d(8, 3, {.padding = 1, .bias = false, .name = "stem"}), mest::batch_norm(), mest::relu(),
        mest::conv2d(8, 3, {.padding = 1, .groups = 8}), mest::add(3), mest::max_pool(2), mest::avg_pool(2, {.stride = 1}),
        mest::dropout(0.1f), mest::global_avg_pool(), mest::flatten(), mest::linear(4),
    };
    std::array<mest_layer_plan, std::size(network)> plans;
    const mest_plan_report report = mest::plan(small_config(), network, plans);
    check(report.layers == std::size(network) && report.inputs == 128 && report.outputs == 4, "plan of pictures");
    check(std::strcmp(plans[1].name, "stem") == 0 && plans[5].with == 3 && plans[11].rows == 4, "plan of layers");
    refused("fewer plans than layers", MEST_ERR_ARGUMENT, "out_layers has size 11, give 12: one a layer",
            [&] { mest::plan(small_config(), network, std::span(plans).first(11)); });
}

static void owners()
{
    mest::Model first(small_config(), small_layers);
    const std::vector<float> before = outputs_of(first, data);
    mest_model *const handle = first.get();
    check(first && first.inputs() == INPUTS && first.outputs() == CLASSES, "sizes of a model");

    mest::Model second(std::move(first));
    check(!first && second.get() == handle && first.inputs() == 0, "moved: construction");
    refused("a model that was moved", MEST_ERR_ARGUMENT, "model is NULL", [&] { first.step(data.nth(0)); });
    refused("evaluate without a model", MEST_ERR_ARGUMENT, "model is NULL", [&] { first.evaluate(data.nth(0)); });
    refused("plan without a model", MEST_ERR_ARGUMENT, "model is NULL", [&] { (void)first.plan(); });
    first.cancel();

    mest::Model third(small_config(), small_layers);
    third = std::move(second);
    check(third.get() == handle && !second && same(before, outputs_of(third, data)), "moved: assignment");
    mest::Model &itself = third;
    third = std::move(itself);
    check(third.get() == handle, "moved to itself");
    swap(first, third);
    check(first.get() == handle && !third, "swap");

    mest_model *given = first.release();
    check(given == handle && !first, "release");
    mest::Model adopted(given);
    check(adopted.inputs() == INPUTS && same(before, outputs_of(adopted, data)), "a model of C");

    std::vector<mest::Model> many;
    for (int i = 0; i < 3; i++) many.emplace_back(small_config(), small_layers);
    many.erase(many.begin());
    check(many.size() == 2 && many[1].step(data.nth(0)).count == 16, "models in a vector");

    const mest_plan_report plan = mest::plan(small_config(), small_layers);
    std::vector<std::byte> room(plan.total_bytes + plan.alignment);
    void *start = room.data();
    std::size_t space = room.size();
    std::align(plan.alignment, plan.total_bytes, start, space);
    const std::span block(static_cast<std::byte *>(start), plan.total_bytes);
    {
        mest::Model inside = mest::Model::in(block, small_config(), small_layers);
        check(same(before, outputs_of(inside, data)), "a model in a block");
        check(reinterpret_cast<std::byte *>(inside.get()) >= block.data()
                  && reinterpret_cast<std::byte *>(inside.get()) < block.data() + block.size(), "it lies in the block");
    }
    refused("a block too small", MEST_ERR_MEMORY, "", [&] { (void)mest::Model::in(block.first(64), small_config(), small_layers); });
}

static void errors()
{
    mest::Config config = small_config();
    config.batch = 0;
    refused("batch 0", MEST_ERR_ARGUMENT, "batch", [&] { mest::Model(config, small_layers); });
    refused("plan: batch 0", MEST_ERR_ARGUMENT, "batch", [&] { mest::plan(config, small_layers); });
    config = small_config();
    config.budget_bytes = 1000;
    refused("budget", MEST_ERR_BUDGET, "1000", [&] { mest::Model(config, small_layers); });
    refused("no layers", MEST_ERR_ARGUMENT, "", [&] { mest::Model(small_config(), {}); });
    const mest_layer shapes[] = {mest::input(1, 8, 8), mest::linear(10)};
    refused("shapes", MEST_ERR_SHAPE, "", [&] { mest::Model(small_config(), shapes); });

    mest::Model model(small_config(), small_layers);
    const std::vector<float> before = outputs_of(model, data);
    std::vector<float> wild(data.x.begin(), data.x.begin() + 16 * INPUTS);
    wild[5] = 1.0f / 0.0f;
    mest::Batch batch = data.nth(0);
    batch.x = wild;
    refused("x is not finite", MEST_ERR_ARGUMENT, "", [&] { model.step(batch); });

    batch = data.nth(0);
    batch.x = batch.x.first(batch.x.size() - 1);
    refused("x of no whole samples", MEST_ERR_ARGUMENT, "x has size 1023, give 1024: whole samples", [&] { model.step(batch); });
    batch = data.nth(0);
    batch.labels = batch.labels.first(15);
    refused("labels too short", MEST_ERR_ARGUMENT, "labels has size 15, give 16", [&] { model.step(batch); });
    refused("labels too short: evaluate", MEST_ERR_ARGUMENT, "labels has size 15, give 16", [&] { model.evaluate(batch); });
    refused("labels too short: slice", MEST_ERR_ARGUMENT, "labels has size 15, give 16", [&] { model.step_slice(batch, 0); });
    batch = data.batch(0, 15);
    batch.labels = data.nth(0).labels;
    refused("labels too long", MEST_ERR_ARGUMENT, "labels has size 16, give 15", [&] { model.step(batch); });
    batch = data.nth(0);
    batch.ids = batch.ids.first(3);
    refused("ids", MEST_ERR_ARGUMENT, "ids has size 3, give 16", [&] { model.step(batch); });
    batch = data.nth(0);
    batch.targets = batch.x.first(159);
    refused("targets", MEST_ERR_ARGUMENT, "targets has size 159, give 160", [&] { model.step(batch); });
    batch = data.nth(0);
    batch.labels = {};
    refused("no labels", MEST_ERR_ARGUMENT, "labels", [&] { model.step(batch); });
    refused("no samples", MEST_ERR_ARGUMENT, "", [&] { model.step({}); });
    refused("more than a batch", MEST_ERR_ARGUMENT, "", [&] { model.step(data.all()); });

    std::vector<float> out(SAMPLES * CLASSES);
    refused("predict: x", MEST_ERR_ARGUMENT, "whole samples", [&] { model.predict(std::span(data.x).first(65), out); });
    refused("predict: out", MEST_ERR_ARGUMENT, "", [&] { model.predict(data.x, std::span(out).first(639)); });
    std::vector<float> weights(model.tensor_size(5, MEST_TENSOR_WEIGHT));
    check(weights.size() == 32 * CLASSES, "tensor_size: %zu", weights.size());
    refused("tensor: too small", MEST_ERR_ARGUMENT, "320", [&] { model.tensor(5, MEST_TENSOR_WEIGHT, std::span(weights).first(1)); });
    refused("set_tensor: too small", MEST_ERR_ARGUMENT, "320", [&] { model.set_tensor(5, MEST_TENSOR_WEIGHT, std::span(weights).first(1)); });
    refused("no such tensor", MEST_ERR_ARGUMENT, "", [&] { (void)model.tensor_size(2, MEST_TENSOR_WEIGHT); });
    std::vector<std::uint8_t> counts(SAMPLES - 1);
    refused("forgetting", MEST_ERR_ARGUMENT, "", [&] { (void)model.forgetting(counts); });
    std::array<mest_layer_plan, 5> plans;
    refused("plan of a model", MEST_ERR_ARGUMENT, "out_layers has size 5, give 6", [&] { (void)model.plan(plans); });
    refused("no checkpoint", MEST_ERR_IO, "", [&] { model.load("/nonexistent/model.mest"); });
    model.cancel();
    refused("cancelled", MEST_ERR_CANCELLED, "", [&] { model.step(data.nth(0)); });
    check(same(before, outputs_of(model, data)), "the model is as it was");
}

/* The same training in C and through the wrapper. */
static void training()
{
    const mest::Config config = small_config();
    mest_model *c = nullptr;
    check(mest_model_create(&config, small_layers, std::size(small_layers), nullptr, &c) == MEST_OK, "C: create");
    mest::Model model(config, small_layers), sliced(config, small_layers);
    int slices = 0;
    for (std::uint32_t i = 0; i < 24; i++) {
        const mest::Batch batch = data.nth(i);
        mest_batch given = mest::sized<mest_batch>();
        given.count = 16, given.x = batch.x.data(), given.labels = batch.labels.data(), given.ids = batch.ids.data();
        mest_step_report expected = mest::sized<mest_step_report>();
        check(mest_model_step(c, &given, &expected) == MEST_OK, "C: step");
        const mest_step_report report = model.step(batch);
        check(std::memcmp(&report, &expected, sizeof report) == 0, "step %u: the report of C", i);
        std::optional<mest_step_report> done;
        for (; !done; slices++) done = sliced.step_slice(batch, 1000);
        check(std::memcmp(&*done, &expected, sizeof expected) == 0, "step %u in slices: the report of C", i);
    }
    check(slices > 24 * 4, "slices: %d", slices);

    std::vector<float> expected(SAMPLES * CLASSES);
    check(mest_model_predict(c, data.x.data(), SAMPLES, MEST_PREDICT_PROBABILITIES, expected.data(), expected.size()) == MEST_OK, "C: predict");
    std::vector<float> found(expected.size());
    model.predict(data.x, found, MEST_PREDICT_PROBABILITIES);
    check(same(expected, found), "predict");
    const mest_evaluation result = model.evaluate(data.all());
    check(result.count == SAMPLES && result.correct >= 58, "learned: %u of %u", result.correct, result.count);

    std::array<mest_mutation_layer, 2> moved;
    check(model.mutation(moved).mutations > 0 && moved[0].layer == 1 && moved[1].layer == 3, "mutation");
    std::vector<std::uint8_t> counts(SAMPLES);
    check(model.forgetting(counts).seen == SAMPLES, "forgetting");
    check(model.begin_epoch().epoch == 6 && model.mutate().dropped == 0, "begin_epoch, mutate at the end");
    mest_model_destroy(c);
}

static void selections()
{
    mest::Config config = small_config();
    config.forgetting_flags = MEST_FORGETTING_ORDER;
    mest::Model model(config, small_layers);
    for (std::uint32_t i = 0; i < 8; i++) model.step(data.nth(i));
    std::vector<std::uint32_t> ids(SAMPLES), order(SAMPLES);
    check(model.select() == SAMPLES && model.select(ids) == SAMPLES && ids == data.ids, "the training set");
    mest_selection rule = mest::sized<mest_selection>();
    rule.rule = MEST_REMOVE_NUMBER, rule.remove_number = 10;
    check(model.select(ids, rule) == SAMPLES - 10, "a rule");
    check(model.order() == SAMPLES && model.order(order) == SAMPLES, "the order");
    std::vector<std::uint32_t> reversed(order.rbegin(), order.rend());
    model.set_order(reversed);
    check(model.order(order) == SAMPLES && order == reversed, "an order that was set");
    model.set_order({});
    check(model.order(order) == SAMPLES && order != reversed, "counts again");
    refused("an id twice", MEST_ERR_ARGUMENT, "", [&] { model.set_order(std::array<std::uint32_t, 2>{1, 1}); });
}

static void connections()
{
    mest::Model model(small_config(), small_layers);
    model.step(data.nth(0));
    check(model.csr_bytes(1) == 0 && model.csr_bytes(3) > 0, "csr_bytes");
    const mest::Csr view = model.csr(1);
    check(view.rows == 48 && view.columns == INPUTS && view.row_start.size() == 49 && view.row_start[48] == view.column.size()
              && view.value.size() == view.column.size() && view.momentum.size() == view.column.size()
              && view.capacity >= view.column.size(), "a view of connections");
    refused("no buffer", MEST_ERR_ARGUMENT, "csr_bytes", [&] { (void)model.csr(3); });
    std::vector<std::byte> buffer(model.csr_bytes(3));
    refused("a small buffer", MEST_ERR_ARGUMENT, "", [&] { (void)model.csr(3, std::span(buffer).first(8)); });
    const mest::Csr copied = model.csr(3, buffer);
    check(copied.rows == 32 && reinterpret_cast<const std::byte *>(copied.value.data()) > buffer.data()
              && reinterpret_cast<const std::byte *>(copied.value.data()) < buffer.data() + buffer.size(), "connections of blocks");
    refused("a dense layer", MEST_ERR_ARGUMENT, "", [&] { (void)model.csr(5); });

    /* Into another model: it becomes this one. */
    mest::Config config = small_config();
    config.seed = 2;
    mest::Model other(config, small_layers);
    const std::vector<float> wanted = outputs_of(model, data);
    check(!same(wanted, outputs_of(other, data)), "another seed");
    std::vector<std::byte> also(model.csr_bytes(1) + 1);
    other.set_csr(1, model.csr(1, also));
    other.set_csr(3, copied);
    for (const std::uint32_t layer : {1u, 3u, 5u})
        for (const std::int32_t tensor : {MEST_TENSOR_BIAS, MEST_TENSOR_WEIGHT}) {
            std::vector<float> values(model.tensor_size(layer, tensor));
            model.tensor(layer, tensor, values);
            other.set_tensor(layer, tensor, values);
        }
    check(same(wanted, outputs_of(other, data)), "set_csr and set_tensor");

    mest::Csr wrong = copied;
    wrong.value = wrong.value.first(3);
    refused("values", MEST_ERR_ARGUMENT, "value has size 3", [&] { other.set_csr(3, wrong); });
    wrong = copied;
    wrong.rows--;
    refused("row_start", MEST_ERR_ARGUMENT, "row_start has size 33, give 32: rows + 1", [&] { other.set_csr(3, wrong); });
    wrong = copied;
    wrong.momentum = wrong.momentum.first(3);
    refused("momentum", MEST_ERR_ARGUMENT, "momentum has size 3", [&] { other.set_csr(3, wrong); });
    wrong = copied;
    wrong.momentum = {};
    other.set_csr(3, wrong);
    check(other.csr(3, buffer).momentum[0] == 0, "no momentum: zeros");
}

static void files()
{
    const std::filesystem::path folder = std::filesystem::temp_directory_path() / ("mest-cpp-" + std::to_string(std::rand()));
    std::filesystem::create_directory(folder);
    const std::string path = folder / "model.mest";
    mest::Model model(small_config(), small_layers);
    for (std::uint32_t i = 0; i < 5; i++) model.step(data.nth(i));
    const mest_checkpoint_report saved = model.save(path.c_str());
    check(saved.updates == 5 && std::filesystem::file_size(path) == saved.bytes, "save");
    mest::Model other(small_config(), small_layers);
    const mest_checkpoint_report loaded = other.load(path.c_str());
    check(loaded.updates == 5 && same(outputs_of(model, data), outputs_of(other, data)), "load");
    const mest_step_report a = model.step(data.nth(5)), b = other.step(data.nth(5));
    check(std::memcmp(&a, &b, sizeof a) == 0, "training goes on to the same bits");
    mest::Config config = small_config();
    config.learning_rate = 0.01f;
    mest::Model changed(config, small_layers);
    refused("another learning rate", MEST_ERR_ARGUMENT, "", [&] { changed.load(path.c_str()); });
    check(changed.load(path.c_str(), MEST_LOAD_OTHER_SETTINGS).updates == 5, "load: flags");
    std::filesystem::remove_all(folder);
}

/* DIVERGED throws, and its report still tells where the model has returned to. */
static void returning()
{
    mest::Config config = small_config();
    config.recover_epochs = 1;
    config.learning_rate = 1e30f;
    mest::Model model(config, small_layers);
    mest_step_report report{};
    mest_status status = MEST_OK;
    for (std::uint32_t i = 0; i < 20 && status == MEST_OK; i++)
        try {
            model.step(data.nth(i), report);
        } catch (const mest::Error &error) {
            status = error.status();
        }
    check(status == MEST_ERR_DIVERGED && (report.events & MEST_EVENT_RETURNED), "returned: %s", mest_status_string(status));
}

int main()
{
    layers();
    pictures();
    owners();
    errors();
    training();
    selections();
    connections();
    files();
    returning();
    return finish("cpp model");
}
