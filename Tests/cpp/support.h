/* SPDX-License-Identifier: Apache-2.0
 * What the tests of mest.hpp share: counted checks (those of Tests/c), a small network with data, who must fail. */
#ifndef SUPPORT_H
#define SUPPORT_H

#include "../c/check.h"
#include <mest.hpp>

#include <array>
#include <cstring>
#include <string>
#include <vector>

inline constexpr std::uint32_t SAMPLES = 64, INPUTS = 64, CLASSES = 10;

inline constexpr mest_layer small_layers[] = {
    mest::input(INPUTS),
    mest::linear(48, {.name = "hidden"}),
    mest::relu(),
    mest::linear(32, {.scheme = MEST_SCHEME_BLOCK4}),
    mest::relu(),
    mest::linear(CLASSES, {.density = 1}),
};

inline mest::Config small_config()
{
    mest::Config config;
    config.seed = 1;
    config.batch = 16;
    config.threads = 1;
    config.learning_rate = 0.05f;
    config.momentum = 0.9f;
    config.epochs = 6;
    config.samples = SAMPLES;
    config.density = 0.3f;
    config.method = MEST_METHOD_EMS;
    config.mutation_every = 1;
    return config;
}

/* Made-up samples: noise around one of CLASSES patterns. */
struct Data {
    std::vector<float> x = std::vector<float>(SAMPLES * INPUTS);
    std::vector<std::int32_t> labels = std::vector<std::int32_t>(SAMPLES);
    std::vector<std::uint32_t> ids = std::vector<std::uint32_t>(SAMPLES);

    Data()
    {
        std::uint32_t state = 1;
        for (std::uint32_t i = 0; i < SAMPLES; i++) {
            labels[i] = static_cast<std::int32_t>(i % CLASSES);
            ids[i] = i;
            for (std::uint32_t j = 0; j < INPUTS; j++) {
                state = state * 1664525u + 1013904223u;
                const float noise = static_cast<float>(state >> 8) / 16777216.0f - 0.5f;
                x[i * INPUTS + j] = noise + ((j + i % CLASSES) % CLASSES == 0 ? 1.0f : 0.0f);
            }
        }
    }

    mest::Batch batch(std::uint32_t first, std::uint32_t count) const
    {
        return {.x = std::span(x).subspan(first * INPUTS, count * INPUTS),
                .labels = std::span(labels).subspan(first, count),
                .ids = std::span(ids).subspan(first, count)};
    }
    mest::Batch all() const { return batch(0, SAMPLES); }
    /* The n-th of an endless training. */
    mest::Batch nth(std::uint32_t n) const { return batch(n % 4 * 16, 16); }
};

inline std::vector<float> outputs_of(mest::Model &model, const Data &data)
{
    std::vector<float> out(SAMPLES * CLASSES);
    model.predict(data.x, out);
    return out;
}

inline bool same(const std::vector<float> &a, const std::vector<float> &b)
{
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

#if defined(__cpp_exceptions)
/* `call` fails with this status, and its message has these words. */
template <class Call>
void refused(const char *what, mest_status status, const char *words, Call &&call)
{
    try {
        call();
        check(0, "%s: no error", what);
    } catch (const mest::Error &error) {
        check(error.status() == status, "%s: %s, but %s was expected", what, error.what(), mest_status_string(status));
        check(std::strstr(error.message(), words) != nullptr, "%s: '%s' lacks '%s'", what, error.message(), words);
        check(std::string(error.what()) == std::string(mest_status_string(status)) + ": " + error.message(),
              "%s: what() is '%s'", what, error.what());
    }
}
#endif

#endif
