# SPDX-License-Identifier: Apache-2.0
"""include/mest.h in ctypes: constants, structs and one table of every function.

Names are those of the header, so that a search finds both sides.  Nothing here decides anything;
Tests/python/test_header.py compares every number, offset and prototype with the header.
"""

from __future__ import annotations

import ctypes
from ctypes import CFUNCTYPE, POINTER, c_char_p, c_size_t, c_void_p
from ctypes import c_float as f32
from ctypes import c_int32 as i32
from ctypes import c_uint32 as u32
from ctypes import c_uint64 as u64
from typing import Any, Dict, List, Tuple, Type

MEST_ABI_VERSION = 1

# Statuses
MEST_OK, MEST_MORE = 0, 1
MEST_ERR_ARGUMENT, MEST_ERR_SHAPE, MEST_ERR_UNSUPPORTED, MEST_ERR_VERSION = -10, -11, -12, -13
MEST_ERR_STATE, MEST_ERR_CANCELLED, MEST_ERR_CALLBACK, MEST_ERR_DIVERGED = -20, -21, -22, -23
MEST_ERR_MEMORY, MEST_ERR_BUDGET, MEST_ERR_INTERNAL = -30, -31, -90
MEST_ERR_CORRUPT, MEST_ERR_IO = -40, -41

# mest_layer
MEST_LAYER_INPUT, MEST_LAYER_LINEAR, MEST_LAYER_CONV2D, MEST_LAYER_BATCH_NORM = 1, 2, 3, 4
MEST_LAYER_RELU, MEST_LAYER_MAX_POOL, MEST_LAYER_AVG_POOL = 5, 6, 7
MEST_LAYER_GLOBAL_AVG_POOL, MEST_LAYER_ADD, MEST_LAYER_FLATTEN, MEST_LAYER_DROPOUT = 8, 9, 10, 11
MEST_SCHEME_DEFAULT, MEST_SCHEME_UNSTRUCTURED = 0, 1
MEST_SCHEME_BLOCK4, MEST_SCHEME_BLOCK8, MEST_SCHEME_BLOCK16 = 2, 3, 4
MEST_SCHEME_PATTERN, MEST_SCHEME_NM24, MEST_SCHEME_FAN_IN = 5, 6, 7
MEST_SCHEME_FILTER, MEST_SCHEME_CHANNEL = 8, 9
MEST_SCHEME_ROW4, MEST_SCHEME_ROW8, MEST_SCHEME_ROW16 = 10, 11, 12
MEST_PATTERNS_CODE8 = 1
MEST_FORGETTING_MARGIN, MEST_FORGETTING_ORDER = 1, 2
MEST_ACTIVATIONS_F32 = 0
MEST_ACTIVATIONS_BF16 = 1
MEST_RECOMPUTE_NONE = 0
MEST_RECOMPUTE_BLOCK = 1
MEST_RECOMPUTE_ELEMENTWISE = 2
MEST_FLAG_NO_BIAS, MEST_FLAG_NO_AFFINE = 1, 2
MEST_FROM_INPUT = -1
MEST_NAME_BYTES = 24

# mest_config
MEST_LOSS_CROSS_ENTROPY, MEST_LOSS_MSE = 0, 1
MEST_SIMD_AUTO, MEST_SIMD_REFERENCE, MEST_SIMD_AVX2, MEST_SIMD_AVX512 = 0, 1, 2, 3
MEST_SIMD_NEON = 4
MEST_SGD_NESTEROV, MEST_NO_DECAY_BIAS, MEST_NO_DECAY_NORM = 1, 2, 4
MEST_SCHEDULE_CONSTANT, MEST_SCHEDULE_STEP, MEST_SCHEDULE_COSINE = 0, 1, 2
MEST_SCHEDULE_BY_UPDATE = 1
MEST_DISTRIBUTION_UNIFORM, MEST_DISTRIBUTION_ERK = 0, 1
MEST_METHOD_STATIC, MEST_METHOD_VANILLA, MEST_METHOD_EM, MEST_METHOD_EMS = 0, 1, 2, 3
MEST_METHOD_SET, MEST_METHOD_GMP, MEST_METHOD_RIGL, MEST_METHOD_DSR = 4, 5, 6, 7
MEST_METHOD_LOTTERY, MEST_METHOD_SNIP, MEST_METHOD_GRASP, MEST_METHOD_GSE = 8, 9, 10, 11
MEST_METHOD_SRIGL = 12
MEST_INITIAL_RANDOM, MEST_INITIAL_MAGNITUDE = 0, 1
MEST_DECAY_STAIRCASE, MEST_DECAY_COSINE = 0, 1
MEST_MUTATION_EXCLUDE_DROPPED, MEST_MUTATION_ROUND_COMPAT, MEST_MUTATION_NORMALISED = 1, 2, 4
MEST_MUTATION_GLOBAL = 8
MEST_GRADIENT_LAST, MEST_GRADIENT_EMA, MEST_GRADIENT_MOMENTUM = 0, 1, 2
MEST_REMOVE_NONE, MEST_REMOVE_COUNT, MEST_REMOVE_NUMBER, MEST_REMOVE_FRACTION = 0, 1, 2, 3

# Callbacks and reports
MEST_OUTPUT_STORED, MEST_OUTPUT_IN_PLACE, MEST_OUTPUT_FUSED, MEST_OUTPUT_RECOMPUTED = 0, 1, 2, 3
MEST_LOG_INFO, MEST_LOG_WARNING = 1, 2
MEST_STAGE_STEP, MEST_STAGE_MUTATE, MEST_STAGE_PREDICT, MEST_STAGE_EVALUATE = 1, 2, 3, 4
MEST_EVENT_UPDATED, MEST_EVENT_EPOCH, MEST_EVENT_MUTATED, MEST_EVENT_REMOVED = 1, 2, 4, 8
MEST_EVENT_SIEVED, MEST_EVENT_RETURNED = 16, 32
MEST_MOST_RETURNS = 16
MEST_FORGETTING_BINS = 64
MEST_NEVER_LEARNED = 255
MEST_PREDICT_PROBABILITIES = 1

# Checkpoints
MEST_CHECKPOINT_CHUNK = 1024
MEST_LOAD_OTHER_SETTINGS = 1

# Tensors
MEST_TENSOR_WEIGHT, MEST_TENSOR_WEIGHT_GRADIENT, MEST_TENSOR_WEIGHT_MOMENTUM = 1, 2, 3
MEST_TENSOR_BIAS, MEST_TENSOR_BIAS_GRADIENT, MEST_TENSOR_BIAS_MOMENTUM = 4, 5, 6
MEST_TENSOR_SCALE, MEST_TENSOR_SCALE_GRADIENT, MEST_TENSOR_SCALE_MOMENTUM = 7, 8, 9
MEST_TENSOR_RUNNING_MEAN, MEST_TENSOR_RUNNING_VAR = 10, 11

# Arrays of numbers travel as plain addresses (arrays.address): ctypes would accept a
# typed pointer only after a cast that costs more than the check is worth.
address = c_void_p
model = c_void_p


class Struct(ctypes.Structure):
    """A struct of the header; struct_size is filled in."""

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        self.struct_size = ctypes.sizeof(self)


def array(kind: Type[Struct], count: int) -> Any:
    """`count` structs in a row, struct_size filled in (a ctypes array skips __init__)."""
    structs = (kind * count)()
    for struct in structs:
        struct.struct_size = ctypes.sizeof(kind)
    return structs


def _fields(kind: Any, names: str) -> List[Tuple[str, Any]]:
    return [(name, kind) for name in names.split()]


class mest_layer(Struct):
    _fields_ = [
        ("struct_size", u32),
        *_fields(i32, "kind from with"),
        *_fields(u32, "channels height width kernel_h kernel_w stride_h stride_w pad_h pad_w"),
        *_fields(u32, "dilation_h dilation_w groups flags"),
        ("scheme", i32),
        *_fields(f32, "density momentum epsilon rate"),
        ("name", ctypes.c_char * MEST_NAME_BYTES),
    ]


class mest_config(Struct):
    _fields_ = [
        *_fields(u32, "struct_size abi_version"),
        ("seed", u64),
        *_fields(u32, "batch micro_batches threads"),
        ("simd", i32),
        ("budget_bytes", u64),
        *_fields(u32, "gradient_chunks inference_only"),
        ("loss", i32),
        *_fields(f32, "label_smoothing learning_rate momentum weight_decay clip_norm"),
        *_fields(u32, "optimizer_flags epochs steps_per_epoch"),
        ("schedule", i32),
        *_fields(u32, "schedule_flags schedule_every"),
        *_fields(f32, "schedule_gamma learning_rate_min"),
        ("warmup_epochs", u32),
        ("density", f32),
        ("distribution", i32),
        ("allow_empty_rows", u32),
        *_fields(i32, "method mutation_decay"),
        *_fields(u32, "mutation_every mutation_updates"),
        ("mutation_epochs", u32 * 2),
        *_fields(f32, "mutation_rate mutation_extra initial_density"),
        ("mutation_flags", u32),
        ("importance_gradient", i32),
        *_fields(f32, "importance_lambda importance_beta"),
        *_fields(u32, "samples phase1_epochs"),
        ("remove_rule", i32),
        *_fields(u32, "remove_count remove_number"),
        ("remove_fraction", f32),
        ("keep_lowest", u32),
        ("remove_class_cap", f32),
        ("forgetting_flags", u32),
        ("activations", i32),
        ("recompute", i32),
        ("scheme", i32),
        ("scheme_flags", u32),
        ("initial", i32),
        ("freeze_share", f32),
        ("freeze_epochs", u32 * 2),
        ("sieve_absent", f32),
        ("sieve_every", u32),
        ("sieve_share", f32),
        ("reserved", u32),
        ("recover_epochs", u32),
        ("recover_rate", f32),
    ]


class mest_plan_report(Struct):
    _fields_ = [
        *_fields(u32, "struct_size alignment"),
        *_fields(
            u64, "total_bytes table_bytes weight_bytes index_bytes gradient_bytes state_bytes"
        ),
        *_fields(
            u64, "forgetting_bytes batch_bytes workspace_bytes activation_bytes mutation_bytes"
        ),
        *_fields(u64, "dense_bytes parameters active active_peak macs dense_macs"),
        *_fields(u32, "layers inputs outputs lanes steps_per_epoch threads"),
        ("method", i32),
        ("memory_economic", u32),
        ("checkpoint_bytes", u64),
        ("recovery_bytes", u64),
    ]


class mest_layer_plan(Struct):
    _fields_ = [
        ("struct_size", u32),
        *_fields(i32, "kind from with"),
        *_fields(u32, "channels height width rows columns"),
        ("density", f32),
        *_fields(u64, "active capacity weight_bytes index_bytes gradient_bytes state_bytes"),
        *_fields(u64, "activation_bytes macs"),
        ("name", ctypes.c_char * MEST_NAME_BYTES),
        ("scheme", i32),
        ("unit", u32),
        *_fields(i32, "output output_layer output_format"),
        ("alive", u32),
    ]


class mest_progress(Struct):
    _fields_ = [
        ("struct_size", u32),
        ("stage", i32),
        *_fields(u64, "done total"),
        ("epoch", u32),
        ("loss", f32),
    ]


allocate_function = CFUNCTYPE(c_void_p, c_size_t, c_size_t, c_void_p)
release_function = CFUNCTYPE(None, c_void_p, c_size_t, c_void_p)
log_function = CFUNCTYPE(None, i32, c_char_p, c_void_p)
progress_function = CFUNCTYPE(i32, POINTER(mest_progress), c_void_p)
body_function = CFUNCTYPE(None, c_void_p, u32, u32)
parallel_for_function = CFUNCTYPE(None, u32, body_function, c_void_p, c_void_p)


class mest_env(Struct):
    _fields_ = [
        *_fields(u32, "struct_size reserved"),
        ("user", c_void_p),
        ("allocate", allocate_function),
        ("release", release_function),
        ("log", log_function),
        ("progress", progress_function),
        ("parallel_for", parallel_for_function),
    ]


class mest_batch(Struct):
    _fields_ = [*_fields(u32, "struct_size count"), *_fields(address, "x labels targets ids")]


class mest_step_report(Struct):
    _fields_ = [
        *_fields(u32, "struct_size events"),
        ("update", u64),
        *_fields(u32, "epoch step_in_epoch"),
        *_fields(f32, "loss learning_rate gradient_norm"),
        *_fields(u32, "correct count frozen"),
    ]


class mest_epoch_report(Struct):
    _fields_ = [
        *_fields(u32, "struct_size events epoch steps samples dropped grown"),
        ("learning_rate", f32),
        *_fields(u32, "frozen left returned"),
    ]


class mest_mutation_report(Struct):
    _fields_ = [
        *_fields(u32, "struct_size mutations epoch layers"),
        *_fields(u64, "dropped grown active positions"),
        *_fields(f32, "density explored"),
    ]


class mest_mutation_layer(Struct):
    _fields_ = [
        *_fields(u32, "struct_size layer"),
        *_fields(u64, "dropped grown active positions"),
        *_fields(f32, "density explored"),
    ]


class mest_forgetting_report(Struct):
    _fields_ = [
        *_fields(
            u32, "struct_size samples seen learned never_learned unforgettable training phase"
        ),
        *_fields(u64, "events events_epoch presentations presentations_saved"),
        ("histogram", u32 * MEST_FORGETTING_BINS),
    ]


class mest_selection(Struct):
    _fields_ = [
        ("struct_size", u32),
        ("rule", i32),
        *_fields(u32, "remove_count remove_number"),
        ("remove_fraction", f32),
        ("keep_lowest", u32),
    ]


class mest_evaluation(Struct):
    _fields_ = [*_fields(u32, "struct_size count"), ("loss", f32), ("correct", u32)]


class mest_csr(Struct):
    _fields_ = [
        *_fields(u32, "struct_size rows columns count capacity reserved"),
        *_fields(address, "row_start column value momentum buffer"),
        ("buffer_bytes", u64),
    ]


read_function = CFUNCTYPE(i32, u32, u64, c_void_p, c_size_t, c_void_p)
write_function = CFUNCTYPE(i32, u32, u64, c_void_p, c_size_t, c_void_p)
sync_function = CFUNCTYPE(i32, u32, c_void_p)


class mest_io(Struct):
    _fields_ = [
        *_fields(u32, "struct_size minimum_updates"),
        ("user", c_void_p),
        ("read", read_function),
        ("write", write_function),
        ("sync", sync_function),
    ]


class mest_checkpoint_report(Struct):
    _fields_ = [
        ("struct_size", u32),
        ("slot", i32),
        *_fields(u64, "sequence bytes bytes_written updates"),
        *_fields(u32, "epochs step_in_epoch batches_in_epoch damaged"),
    ]


_description = [POINTER(mest_config), POINTER(mest_layer), u32]
_plan_out = [POINTER(mest_plan_report), POINTER(mest_layer_plan)]

# name: (result, arguments).  Without an argtypes entry ctypes would cut 64-bit pointers to int.
PROTOTYPES: Dict[str, Tuple[Any, List[Any]]] = {
    "mest_version": (u32, []),
    "mest_version_string": (c_char_p, []),
    "mest_abi_version": (u32, []),
    "mest_build_info": (c_char_p, []),
    "mest_status_string": (c_char_p, [i32]),
    "mest_last_error": (c_char_p, [model]),
    "mest_config_init": (i32, [POINTER(mest_config), u32]),
    "mest_plan": (i32, [*_description, *_plan_out]),
    "mest_model_create": (i32, [*_description, POINTER(mest_env), POINTER(model)]),
    "mest_model_create_in": (
        i32,
        [*_description, POINTER(mest_env), address, c_size_t, POINTER(model)],
    ),
    "mest_model_destroy": (None, [model]),
    "mest_model_plan": (i32, [model, *_plan_out]),
    "mest_model_step": (i32, [model, POINTER(mest_batch), POINTER(mest_step_report)]),
    "mest_model_step_slice": (i32, [model, POINTER(mest_batch), u64, POINTER(mest_step_report)]),
    "mest_model_begin_epoch": (i32, [model, POINTER(mest_epoch_report)]),
    "mest_model_mutate": (i32, [model, POINTER(mest_mutation_report)]),
    "mest_model_mutation": (
        i32,
        [model, POINTER(mest_mutation_report), POINTER(mest_mutation_layer), u32],
    ),
    "mest_model_forgetting": (i32, [model, POINTER(mest_forgetting_report), address, u64]),
    "mest_model_order": (i32, [model, address, u64, POINTER(u64)]),
    "mest_model_order_set": (i32, [model, address, u64]),
    "mest_model_select": (i32, [model, POINTER(mest_selection), address, u64, POINTER(u64)]),
    "mest_model_predict": (i32, [model, address, u64, u32, address, u64]),
    "mest_model_evaluate": (i32, [model, POINTER(mest_batch), POINTER(mest_evaluation)]),
    "mest_model_tensor_size": (i32, [model, u32, i32, POINTER(u64)]),
    "mest_model_tensor_get": (i32, [model, u32, i32, address, u64]),
    "mest_model_tensor_set": (i32, [model, u32, i32, address, u64]),
    "mest_model_csr_get": (i32, [model, u32, POINTER(mest_csr)]),
    "mest_model_csr_set": (i32, [model, u32, POINTER(mest_csr)]),
    "mest_model_save": (i32, [model, POINTER(mest_io), POINTER(mest_checkpoint_report)]),
    "mest_model_load": (i32, [model, POINTER(mest_io), u32, POINTER(mest_checkpoint_report)]),
    "mest_model_save_file": (i32, [model, c_char_p, POINTER(mest_checkpoint_report)]),
    "mest_model_load_file": (i32, [model, c_char_p, u32, POINTER(mest_checkpoint_report)]),
    "mest_model_cancel": (None, [model]),
}
