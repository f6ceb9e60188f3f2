/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where each struct of mest.h ended in the first release: programs compiled with its header are served by every later
 * library of the same MEST_ABI_VERSION.  Never changes; a new struct gets a line when it is released.
 *
 * No struct ends with padding (tools/check-abi.sh): a field that took its place would be what an old caller left there.
 */
#ifndef MEST_OLDEST_H
#define MEST_OLDEST_H
#include "../../include/mest.h"

#define MEST_UP_TO(type, last) (offsetof(type, last) + sizeof(((type *)0)->last))
enum {
    MEST_OLDEST_LAYER = MEST_UP_TO(mest_layer, name),
    MEST_OLDEST_CONFIG = MEST_UP_TO(mest_config, reserved),
    MEST_OLDEST_PLAN_REPORT = MEST_UP_TO(mest_plan_report, checkpoint_bytes),
    MEST_OLDEST_LAYER_PLAN = MEST_UP_TO(mest_layer_plan, alive),
    MEST_OLDEST_ENV = MEST_UP_TO(mest_env, parallel_for),
    MEST_OLDEST_BATCH = MEST_UP_TO(mest_batch, ids),
    MEST_OLDEST_STEP_REPORT = MEST_UP_TO(mest_step_report, frozen),
    MEST_OLDEST_EPOCH_REPORT = MEST_UP_TO(mest_epoch_report, returned),
    MEST_OLDEST_MUTATION_REPORT = MEST_UP_TO(mest_mutation_report, explored),
    MEST_OLDEST_MUTATION_LAYER = MEST_UP_TO(mest_mutation_layer, explored),
    MEST_OLDEST_FORGETTING_REPORT = MEST_UP_TO(mest_forgetting_report, histogram),
    MEST_OLDEST_SELECTION = MEST_UP_TO(mest_selection, keep_lowest),
    MEST_OLDEST_EVALUATION = MEST_UP_TO(mest_evaluation, correct),
    MEST_OLDEST_CSR = MEST_UP_TO(mest_csr, buffer_bytes),
    MEST_OLDEST_IO = MEST_UP_TO(mest_io, sync),
    MEST_OLDEST_CHECKPOINT_REPORT = MEST_UP_TO(mest_checkpoint_report, damaged)
};
#endif
