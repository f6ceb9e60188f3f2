// SPDX-License-Identifier: Apache-2.0
// Trains a small sparse convolutional network to read handwritten digits (8 x 8 pixels): examples/c/train_digits.c
// in C++, to the same bits.
//
//     c++ -std=c++20 -O2 train_digits.cpp -o train_digits $(pkg-config --cflags --libs mest)
//     gzip -dc ../data/digits.csv.gz | ./train_digits
//     ./train_digits digits.csv
//
// Input: lines of 64 pixels 0..16 and the digit, separated by commas.
#include <mest.hpp>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

constexpr std::uint32_t PIXELS = 64, CLASSES = 10, BATCH = 32, EPOCHS = 24, TEST = 297;

struct Digits {
    std::vector<float> x;
    std::vector<std::int32_t> labels;
};

// Empty when a line is not whole.
static Digits read_digits(std::istream &in)
{
    Digits digits;
    for (std::string line; std::getline(in, line) && !line.empty();) {
        const char *rest = line.c_str();
        for (std::uint32_t i = 0; i <= PIXELS; i++) {
            char *end;
            const long value = std::strtol(rest, &end, 10);
            if (end == rest || *end != (i < PIXELS ? ',' : '\0')) return {};
            if (i < PIXELS) digits.x.push_back(static_cast<float>(value) / 8 - 1);
            else if (value >= 0 && value < static_cast<long>(CLASSES)) digits.labels.push_back(static_cast<std::int32_t>(value));
            else return {};
            rest = end + 1;
        }
    }
    return digits;
}

static void shuffle(std::span<std::uint32_t> list)
{
    static std::uint64_t state = 1;
    for (std::uint64_t i = list.size(); i > 1; i--) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        std::swap(list[i - 1], list[(state >> 33) % i]);
    }
}

static int train(const Digits &digits)
{
    const auto training = static_cast<std::uint32_t>(digits.labels.size()) - TEST;

    constexpr mest_layer layers[] = {
        mest::input(1, 8, 8),
        mest::conv2d(32, 3, {.padding = 1, .density = 1, .bias = false}),
        mest::batch_norm(),
        mest::relu(),
        mest::conv2d(64, 3, {.stride = 2, .padding = 1, .bias = false}),
        mest::batch_norm(),
        mest::relu(),
        mest::flatten(),
        mest::linear(CLASSES),
    };
    mest::Config config;
    config.seed = 1;
    config.batch = BATCH;
    config.learning_rate = 0.05f;
    config.momentum = 0.9f;
    config.weight_decay = 5e-4f;
    config.epochs = EPOCHS;
    config.schedule = MEST_SCHEDULE_COSINE;
    config.density = 0.1f;           // one tenth of the connections exist ...
    config.method = MEST_METHOD_EMS; // ... and move while it trains
    config.mutation_every = 2;
    config.importance_lambda = 0.01f;
    config.samples = training;
    config.phase1_epochs = EPOCHS / 2; // then those never forgotten leave ...
    config.remove_rule = MEST_REMOVE_COUNT;
    config.keep_lowest = training / 2; // ... but half of all stay

    const mest_plan_report plan = mest::plan(config, layers);
    std::printf("plan: %llu of %llu weights, %llu bytes in all\n", static_cast<unsigned long long>(plan.active),
                static_cast<unsigned long long>(plan.parameters), static_cast<unsigned long long>(plan.total_bytes));

    mest::Model model(config, layers);
    std::vector<std::uint32_t> ids(training);
    std::vector<float> x(BATCH * PIXELS);
    std::vector<std::int32_t> labels(BATCH);
    for (std::uint32_t e = 0; e < EPOCHS; e++) {
        const mest_epoch_report epoch = model.begin_epoch();
        const std::span chosen(ids.data(), model.select(ids));
        shuffle(chosen);

        double loss = 0;
        std::uint32_t correct = 0;
        for (std::size_t first = 0; first < chosen.size(); first += BATCH) {
            const auto batch = chosen.subspan(first, std::min<std::size_t>(BATCH, chosen.size() - first));
            for (std::size_t i = 0; i < batch.size(); i++) {
                std::memcpy(&x[i * PIXELS], &digits.x[batch[i] * PIXELS], PIXELS * sizeof(float));
                labels[i] = digits.labels[batch[i]];
            }
            const mest_step_report step = model.step({.x = std::span(x).first(batch.size() * PIXELS),
                                                      .labels = std::span(labels).first(batch.size()),
                                                      .ids = batch});
            loss += step.loss * static_cast<float>(step.count);
            correct += step.correct;
        }
        std::printf("epoch %2u  loss %.4f  correct %5.1f %% of %4zu", e, loss / static_cast<double>(chosen.size()),
                    100.0 * correct / static_cast<double>(chosen.size()), chosen.size());
        if (epoch.events & MEST_EVENT_MUTATED) std::printf("  moved: %u dropped, %u grown", epoch.dropped, epoch.grown);
        if (epoch.events & MEST_EVENT_REMOVED) std::printf("  phase 2: %u samples left", training - epoch.samples);
        std::putchar('\n');
    }

    const mest_evaluation result = model.evaluate({.x = std::span(digits.x).subspan(training * PIXELS),
                                                   .labels = std::span(digits.labels).subspan(training)});
    std::printf("test, the last %u of the file (harder than a random choice): loss %.4f, %.1f %% correct\n", TEST, result.loss,
                100.0 * result.correct / TEST);
    const mest_forgetting_report memory = model.forgetting();
    std::printf("forgetting, phase %u: %llu times; %u samples never forgotten, %u never learned\n", memory.phase,
                static_cast<unsigned long long>(memory.events), memory.unforgettable, memory.never_learned);
    return 100 * result.correct < 90 * TEST;
}

int main(int argc, char **argv)
{
    std::ifstream file;
    if (argc > 1) file.open(argv[1]);
    const Digits digits = read_digits(argc > 1 ? file : std::cin);
    if (digits.labels.size() <= TEST) {
        std::fprintf(stderr, "usage: train_digits [digits.csv], lines of 64 pixels and a digit\n");
        return 1;
    }
    try {
        return train(digits);
    } catch (const mest::Error &error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
