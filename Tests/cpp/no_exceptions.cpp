// SPDX-License-Identifier: Apache-2.0
// mest.hpp with -fno-exceptions -fno-rtti: a failed call ends in the program's own mest::failed().
#include "support.h"

#include <csetjmp>

static std::jmp_buf back;
static mest_status last_status;
static int failures;

[[noreturn]] void mest::failed(const mest::Error &error)
{
    last_status = error.status();
    failures++;
    std::longjmp(back, 1); /* a device would log and restart; nothing here has a destructor to skip */
}

static const Data data;

struct Watch {
    int seen = 0;
    bool stop = false;
    bool progress(const mest_progress &)
    {
        seen++;
        return stop;
    }
};

int main()
{
    static Watch watch;
    static mest::Env env(watch);
    static mest::Model model(small_config(), small_layers, env);
    for (std::uint32_t i = 0; i < 24; i++) model.step(data.nth(i));
    check(watch.seen > 0 && model.evaluate(data.all()).correct > SAMPLES / 2, "training");

    if (setjmp(back) == 0) {
        model.step({});
        check(0, "no samples: no error");
    }
    check(failures == 1 && last_status == MEST_ERR_ARGUMENT, "no samples");
    watch.stop = true;
    if (setjmp(back) == 0) {
        model.evaluate(data.all());
        check(0, "progress returns true: no error");
    }
    check(failures == 2 && last_status == MEST_ERR_CALLBACK, "progress returns true");
    watch.stop = false;

    /* Who goes on after an error asks C. */
    const mest_batch empty = mest::sized<mest_batch>();
    check(mest_model_step(model.get(), &empty, nullptr) == MEST_ERR_ARGUMENT && failures == 2, "a call of C");
    check(model.step(data.nth(0)).count == 16, "training goes on");
    return finish("cpp no exceptions");
}
