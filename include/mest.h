/*
 * mest.h - the public C API of libmest: sparse training on edge devices.
 *
 * libmest trains neural networks whose weights, gradients and optimizer state exist only where a
 * connection exists.  Connections move while the network trains (MEST, NeurIPS 2021, arXiv
 * 2110.14032).  This header is the manual: what is not declared here is not published API.
 *
 *     mest_config config = MEST_CONFIG_INIT;
 *     config.batch = 32;  config.samples = 1797;  config.epochs = 20;
 *     config.density = 0.1f;  config.method = MEST_METHOD_EMS;
 *     config.learning_rate = 0.05f;  config.momentum = 0.9f;
 *
 *     const mest_layer layers[] = {
 *         { MEST_LAYER_HEAD(MEST_LAYER_INPUT),   .channels = 64 },
 *         { MEST_LAYER_HEAD(MEST_LAYER_LINEAR),  .channels = 128 },
 *         { MEST_LAYER_HEAD(MEST_LAYER_RELU) },
 *         { MEST_LAYER_HEAD(MEST_LAYER_LINEAR),  .channels = 10, .density = 1.0f },
 *     };
 *     mest_plan_report plan = { .struct_size = sizeof plan };
 *     mest_status status = mest_plan(&config, layers, 4, &plan, NULL);  // plan.total_bytes
 *     mest_model *model;
 *     status = mest_model_create(&config, layers, 4, NULL, &model);
 *     status = mest_model_step(model, &batch, &report);      // forward, backward, update
 *     mest_model_destroy(model);
 *
 * What stands where, in this order
 * --------------------------------
 * mest_status            what can go wrong, mest_last_error()
 * mest_layer             the network: kinds of layers; schemes, FILTER and CHANNEL
 * mest_config            how to train: methods, SNIP and GRASP; learning rate, mutation, forgetting
 * mest_plan              every byte beforehand
 * mest_model_create      memory, threads, callbacks: mest_env
 * mest_model_step        training, whole steps or slices; freezing; epochs; mutation
 * mest_model_forgetting  sieving; selection; orders of samples
 * mest_model_predict     and mest_model_evaluate
 * mest_model_tensor_get  parameters; mest_csr: connections
 * mest_model_save        checkpoints: mest_io, files
 * mest_model_cancel
 *
 * Rules that hold for every function
 * ----------------------------------
 * Errors    A function that can fail returns a mest_status: 0, or a negative code of this header
 *           (mest_model_step_slice() also MEST_MORE, which is none).
 *           mest_last_error() says what to change.  A call that failed left the model as it was,
 *           but for what the function's own text says.
 *           Nothing in this library aborts, exits, prints or throws.
 * Memory    mest_plan() is arithmetic and tells every byte; mest_model_create() asks once for
 *           exactly that many bytes; no later call allocates.  Not among them: the library's
 *           threads, which have 1 MB of stack each; config.threads = 1 starts none.
 * Stack     Of the calling thread, on 64-bit machines, and what a callback takes: 24 KB;
 *           create_in 32 KB, in a block of 2 KB a layer; plan and create 32 KB and 1 KB a layer.
 *           Microcontrollers: 16 KB, plan and create 1 KB a layer more (docs/firmware.md).
 * Threads   Different models may be used at the same time from different threads.  One model is
 *           for one thread at a time: a second call that overlaps gets MEST_ERR_STATE.
 *           mest_model_cancel() alone may be called at any time from any thread; it and
 *           mest_model_destroy() must not meet.
 *           The library's own threads belong to the process: the first model that wants some
 *           starts them, models that run at the same time share them, they sleep when nothing
 *           runs and take no signals but those of their own faults.  They may run on the processors
 *           that the thread may whose call starts them, and are scheduled as it is: let one make
 *           the first model that has what all models need.  Where the system gives none, the
 *           caller's thread does their work.  They live until the process exits: one whose main
 *           thread calls pthread_exit() goes on living, and what is linked with libmest.a must not
 *           be unloaded (-z nodelete, which libmest.so has).  A call is no point where
 *           pthread_cancel() strikes.
 * Fork      The child may use the models of its parent, which are its own copies, and new ones; but
 *           one that another thread's call was using stays busy there: STATE.
 * Bits      The same seed, description and calls give the same bits for every number of threads
 *           and every instruction set, whatever floating-point mode the calling thread has (the
 *           threads of the caller's parallel_for: the default one, with subnormal numbers).
 * Structs   Every struct begins with struct_size = sizeof(struct); fields are only ever appended,
 *           and a program compiled with an earlier header of the same MEST_ABI_VERSION is served;
 *           zero in any other field means the default, so `= { .struct_size = sizeof x }` is a
 *           valid start (mest_config: MEST_CONFIG_INIT).
 * Tensors   float32 in the caller's usual order: [sample][channel][row][column], contiguous.
 * Pointers  Those marked "or NULL" may be NULL.  Others may not (checked: MEST_ERR_ARGUMENT).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEST_H
#define MEST_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ================================================================ version and ABI handshake === */

#define MEST_VERSION_MAJOR 0
#define MEST_VERSION_MINOR 1
#define MEST_VERSION_PATCH 0

/* Raised by one whenever a compiled caller could notice a change.  mest_config carries the number
 * the caller was compiled with; another number gives MEST_ERR_VERSION. */
#define MEST_ABI_VERSION 1u

#if defined(__GNUC__) || defined(__clang__)
#  define MEST_NODISCARD __attribute__((warn_unused_result))
#  define MEST_API __attribute__((visibility("default")))
#else
#  define MEST_NODISCARD
#  define MEST_API
#endif

/* Version of the library in use: major * 1000000 + minor * 1000 + patch. */
MEST_API uint32_t mest_version(void);

/* "0.1.0".  Static storage. */
MEST_API const char *mest_version_string(void);

/* The MEST_ABI_VERSION that the library in use was built with. */
MEST_API uint32_t mest_abi_version(void);

/* One line about the build: whose threads (threads: its own, openmp, serial: none), instruction
 * sets compiled in, the one that MEST_SIMD_AUTO means here, and whether the environment variable
 * MEST_SIMD says so.  Static storage. */
MEST_API const char *mest_build_info(void);

/* ================================================================================ statuses === */

typedef int32_t mest_status;

enum {
    MEST_OK              = 0,
    MEST_MORE            = 1,   /* mest_model_step_slice() alone: no error, call it again         */
    MEST_ERR_ARGUMENT    = -10, /* a value passed in is wrong: pointer, size, range, NaN        */
    MEST_ERR_SHAPE       = -11, /* layers do not fit together                                   */
    MEST_ERR_UNSUPPORTED = -12, /* valid, but this version cannot do it                         */
    MEST_ERR_VERSION     = -13, /* struct_size, ABI or checkpoint of a version not known here   */
    MEST_ERR_STATE       = -20, /* not now: in use by another call, micro-batches unfinished    */
    MEST_ERR_CANCELLED   = -21, /* mest_model_cancel() was called                               */
    MEST_ERR_CALLBACK    = -22, /* a callback of the caller returned non-zero                   */
    MEST_ERR_DIVERGED    = -23, /* loss or gradient is not finite; the update was not applied   */
    MEST_ERR_MEMORY      = -30, /* the allocator gave nothing, or the given block is too small  */
    MEST_ERR_BUDGET      = -31, /* the plan needs more than config.budget_bytes                 */
    MEST_ERR_CORRUPT     = -40, /* a checkpoint is damaged, cut off, or none                    */
    MEST_ERR_IO          = -41, /* reading or writing failed                                    */
    MEST_ERR_INTERNAL    = -90  /* a defect of the library: please report it                    */
};

/* The name of a status, "MEST_ERR_SHAPE" say; never NULL.  Static storage. */
MEST_API const char *mest_status_string(mest_status status);

/* =============================================================================== the model === */

typedef struct mest_model mest_model; /* opaque */

/* What went wrong in the last failed call, one line, at most 255 bytes, never NULL; "" if none.
 * model: the model of that call.  NULL: calls that had no model (plan, create, a NULL model), or
 * that got MEST_ERR_STATE because another call was running on it; their message is kept per thread.
 * Valid until the next call on that model (that thread). */
MEST_API const char *mest_last_error(const mest_model *model);

/* ---------------------------------------------------------------------------------- layers --- */

enum { /* mest_layer.kind */
    MEST_LAYER_INPUT           = 1,  /* channels, height, width; exactly one, the first          */
    MEST_LAYER_LINEAR          = 2,  /* channels = output features; input must be 1 x 1 pixels   */
    MEST_LAYER_CONV2D          = 3,  /* channels, kernel, stride, padding, groups                */
    MEST_LAYER_BATCH_NORM      = 4,  /* momentum, epsilon                                        */
    MEST_LAYER_RELU            = 5,
    MEST_LAYER_MAX_POOL        = 6,  /* kernel, stride (0: the kernel), padding                  */
    MEST_LAYER_AVG_POOL        = 7,  /* the same; padding counts as zeros                        */
    MEST_LAYER_GLOBAL_AVG_POOL = 8,  /* to 1 x 1 pixels                                          */
    MEST_LAYER_ADD             = 9,  /* from + with, equal shapes: the residual connection       */
    MEST_LAYER_FLATTEN         = 10, /* to channels*height*width features, in that order         */
    MEST_LAYER_DROPOUT         = 11  /* rate: probability that a value is zeroed                 */
};

enum { /* mest_layer.scheme, mest_config.scheme: which connections of a sparse layer may exist */
    MEST_SCHEME_DEFAULT      = 0, /* what config.scheme gives; there: UNSTRUCTURED               */
    MEST_SCHEME_UNSTRUCTURED = 1, /* any single weight                                           */
    MEST_SCHEME_BLOCK4       = 2, /* outputs in blocks of 4; a column exists for a whole block or
                                     not at all.  A last block of fewer outputs is fine          */
    MEST_SCHEME_BLOCK8       = 3, /* ... of 8                                                    */
    MEST_SCHEME_BLOCK16      = 4, /* ... of 16                                                   */
    MEST_SCHEME_PATTERN      = 5, /* CONV2D with a 3 x 3 kernel: kernels with 4 of 9 weights, in
                                     one of 8 patterns, the same number of kernels for every
                                     output; density at most 4/9.  A kernel's pattern is random
                                     and stays its own.  Other kernels, LINEAR: FAN_IN           */
    MEST_SCHEME_NM24         = 6, /* of columns 0 to 3, 4 to 7, ... of an output's row (see
                                     mest_csr) at most 2 each; density at most 0.5, which is 2:4 */
    MEST_SCHEME_FAN_IN       = 7, /* the same number of connections for every output             */
    MEST_SCHEME_FILTER       = 8, /* whole outputs exist or not, and with them the columns of the
                                     layers that read them: see below                            */
    MEST_SCHEME_CHANNEL      = 9, /* whole input channels, and the outputs that make them         */
    MEST_SCHEME_ROW4         = 10, /* inputs in runs of 4 neighbours, of CONV2D input channels: for
                                      an output and a place in its kernel a run exists whole or
                                      not at all.  A last run of fewer inputs is fine            */
    MEST_SCHEME_ROW8         = 11, /* ... of 8                                                   */
    MEST_SCHEME_ROW16        = 12  /* ... of 16                                                  */
};
/* What comes and goes together, a column of a block, a run of inputs or a kernel of a pattern, is
 * dropped by the Euclidean norm of its weights' importances (mest_config.importance_gradient).  A
 * last block or run that lacks outputs or inputs has smaller norms: of its columns, or places, on
 * average the same share leaves as of all others, the least important of its own.
 *
 * FILTER and CHANNEL are about tensors.  The outputs of a LINEAR or CONV2D and all that is computed
 * from them channel by channel (batch norm, ReLU, dropout, pools, FLATTEN, depthwise convolutions,
 * ADD with its other operand) are a group of channels that exist everywhere or nowhere.
 * Which       A group lacks channels when a layer asks: FILTER for its outputs, CHANNEL for its
 *             inputs.  All layers that have them follow, dense ones included
 *             (mest_layer_plan.alive).  Those who ask for one group give one density (ARGUMENT).
 *             Groups that the network's inputs or outputs belong to are complete, and so are those
 *             of an ADD in which pixels of one operand (FLATTEN) meet channels of the other: who
 *             asks for these gets what others ask for on its other side; is that nothing, ARGUMENT.
 *             A layer that is sparse by another scheme cannot have a group that lacks channels
 *             (UNSUPPORTED in this version).
 * How many    round(sqrt(density) * channels), at least one, with the density of those who ask.  A
 *             layer whose inputs' channels are asked for at density d_in, its outputs' at d_out,
 *             has about sqrt(d_in * d_out) of its weights, one that lacks channels on one side
 *             sqrt(d) of them: about `density` where both sides lack channels at one density.
 *             Where densities differ, as those of MEST_DISTRIBUTION_ERK do, layers have others than
 *             they asked for, and all together not config.density.
 * Memory      Nothing is stored or computed for channels that do not exist: the group is planned
 *             for the most there will be.  2 bytes of index for each of them, once a group; 16
 *             bytes of scratch.  Weights lie as dense matrices of what exists, and the kernels are
 *             those.
 * From outside all has its described size.  Weights: mest_csr.  Other tensors, of channels that do
 *             not exist: scale and running variance read 1, others 0; what is set there is ignored.
 *             The dense network of these values computes the same.
 * Mutation    moves channels; mutation_rate and mutation_extra are shares of weights, so that of
 *             channels sqrt of the density dropped to and grown to exists.  A channel's importance
 *             is that of its rows in all layers that make it (FILTER), its columns in all that read
 *             it (CHANNEL), or of both where both were asked.  Groups move one after another, each
 *             by what the ones before it have left.  Each moves at least one channel until the rate
 *             has decayed to 0, and keeps one.  A grown channel: rows w ~ N(0, (0.1 s)^2),
 *             s^2 = 2 / fan_in; columns 0, so that the network computes what it did; scale 1,
 *             shift 0, running statistics 0 and 1, momentum 0.
 */

enum { /* mest_config.scheme_flags, bits */
    MEST_PATTERNS_CODE8 = 1 /* PATTERN: the 8 patterns of the authors' published code, of which one
                               lacks the centre; default: all 8 have it                          */
};

enum { /* mest_layer.flags, bits */
    MEST_FLAG_NO_BIAS   = 1, /* LINEAR, CONV2D: no bias                                          */
    MEST_FLAG_NO_AFFINE = 2  /* BATCH_NORM: no scale and shift                                   */
};

#define MEST_FROM_INPUT (-1) /* mest_layer.from, .with: layer 0 */
#define MEST_NAME_BYTES 24

/*
 * One layer of the description: an array of these is the network.  The array is the caller's; it is
 * read during the call and may be constant (flash).  The last layer's output is what the loss sees:
 * it must have 1 x 1 pixels.  Every layer must lead to it, or the description is refused.  At least
 * one layer has weights.  A field that a layer's kind does not have must be 0.
 * Limits: 1024 layers, 65536 channels, height and width of the input at most 65536, kernel and
 * stride at most 255 (MEST_ERR_ARGUMENT); 2^28 values a sample in one layer (MEST_ERR_SHAPE);
 * inputs * kernel and outputs * kernel of a weight matrix at most 65536, since connections are
 * stored with 16-bit columns, and fewer than 2^31 positions (MEST_ERR_UNSUPPORTED).
 */
typedef struct mest_layer {
    uint32_t struct_size;
    int32_t  kind;       /* MEST_LAYER_*                                                         */
    int32_t  from;       /* 0: the layer before; n > 0: layer n; MEST_FROM_INPUT: layer 0        */
    int32_t  with;       /* ADD: the second operand, counted the same way (0 is refused)         */
    uint32_t channels;   /* INPUT, LINEAR, CONV2D                                                */
    uint32_t height;     /* INPUT; 0 means 1                                                     */
    uint32_t width;      /* INPUT; 0 means 1                                                     */
    uint32_t kernel_h;   /* CONV2D, pools; kernel_h 0 is refused                                 */
    uint32_t kernel_w;   /* 0: kernel_h                                                          */
    uint32_t stride_h;   /* 0: 1 for CONV2D, the kernel for pools                                */
    uint32_t stride_w;   /* 0: stride_h                                                          */
    uint32_t pad_h;      /* zeros added above and below; less than the kernel                    */
    uint32_t pad_w;      /* ... left and right (not inherited from pad_h)                        */
    uint32_t dilation_h; /* 0 or 1; more is MEST_ERR_UNSUPPORTED in this version                 */
    uint32_t dilation_w;
    uint32_t groups;     /* 0 or 1: every output sees every input.  As many as inputs and outputs:
                            depthwise, each channel on its own; its weights are dense whatever
                            the config says, a density below 1 or scheme of its own is refused.
                            Others: MEST_ERR_UNSUPPORTED in this version                         */
    uint32_t flags;      /* MEST_FLAG_*                                                          */
    int32_t  scheme;     /* LINEAR, CONV2D: MEST_SCHEME_*; for layers with density below 1       */
    float    density;    /* LINEAR, CONV2D: share of connections that exist, 1e-6 to 1;
                            0: what config.density and config.distribution give; 1: dense.
                            The plan tells the nearest that the layer can have                   */
    float    momentum;   /* BATCH_NORM: weight of the new batch in running statistics, of which
                            the variance is the unbiased one; 0: 0.1                             */
    float    epsilon;    /* BATCH_NORM: added to the variance; 0: 1e-5                           */
    float    rate;       /* DROPOUT: in [0, 1)                                                   */
    char     name[MEST_NAME_BYTES]; /* for reports, UTF-8, zero-terminated; "": made from kind   */
} mest_layer;

/* First two fields of a mest_layer initializer:  { MEST_LAYER_HEAD(MEST_LAYER_RELU) }
 * (C99, C++20; before C++20 assign the fields one by one.) */
#define MEST_LAYER_HEAD(kind_) .struct_size = (uint32_t)sizeof(mest_layer), .kind = (kind_)

/* ---------------------------------------------------------------------------------- config --- */

enum { /* mest_config.loss */
    MEST_LOSS_CROSS_ENTROPY = 0, /* softmax cross-entropy over the outputs; labels               */
    MEST_LOSS_MSE           = 1  /* mean of squared differences over outputs; targets            */
};

enum { /* mest_config.simd */
    MEST_SIMD_AUTO      = 0, /* the best this machine has, or what the environment variable
                                MEST_SIMD says: reference, avx2, avx512, neon (auto: the best);
                                MEST_ERR_ARGUMENT for any other word, MEST_ERR_UNSUPPORTED where
                                absent.  Firmware has no environment                             */
    MEST_SIMD_REFERENCE = 1, /* plain C                                                          */
    MEST_SIMD_AVX2      = 2, /* 256-bit with FMA; MEST_ERR_UNSUPPORTED where absent              */
    MEST_SIMD_AVX512    = 3, /* 512-bit;          MEST_ERR_UNSUPPORTED where absent              */
    MEST_SIMD_NEON      = 4  /* 128-bit NEON;     MEST_ERR_UNSUPPORTED where absent (AArch64)    */
};

enum { /* mest_config.activations: how activations and their gradients are stored */
    MEST_ACTIVATIONS_F32  = 0,
    MEST_ACTIVATIONS_BF16 = 1 /* pictures as the upper half of a float, half the memory; rounded to
                                 nearest, halfway away from zero; arithmetic stays in float.
                                 Pictures: an INPUT of more than 1 x 1 pixels and what follows from
                                 it, up to GLOBAL_AVG_POOL or FLATTEN.  What those and LINEAR make,
                                 and an INPUT of 1 x 1 pixels, are features and stay floats.  A
                                 picture that has shrunk to one pixel is still one: before LINEAR,
                                 at the end, and where it is added to features, put FLATTEN behind
                                 it (else MEST_ERR_SHAPE)                                        */
};

enum { /* mest_config.recompute: activations that backward computes again instead of keeping them */
                    /* Less memory for more time, how much of both benchmarks/memory.py measures;
                       the same bits.  mest_layer_plan.output tells which                        */
    MEST_RECOMPUTE_NONE  = 0,
    MEST_RECOMPUTE_BLOCK = 1, /* those inside a residual block, or between two pools.  Blocks that
                                 hold less than a third of what the largest does keep theirs, and so
                                 does the last.  Of a chain of m (m + 1) / 2 convolutions, from 6
                                 on, m outputs are held at most; shorter ones, without blocks and
                                 pools, keep all                                                 */
    MEST_RECOMPUTE_ELEMENTWISE = 2 /* those of ReLU and ADD that are stored, unless one that is
                                 given up is needed to compute them, or backward begins there: of
                                 residual blocks every other one.  Little time, less gain        */
};

enum { /* mest_config.optimizer_flags, bits */
    MEST_SGD_NESTEROV      = 1,
    MEST_NO_DECAY_BIAS     = 2, /* weight_decay leaves biases alone                              */
    MEST_NO_DECAY_NORM     = 4  /* weight_decay leaves batch-norm scale and shift alone          */
};

enum { /* mest_config.schedule: learning rate as a pure function of the position in training */
    MEST_SCHEDULE_CONSTANT = 0,
    MEST_SCHEDULE_STEP     = 1, /* times schedule_gamma every schedule_every epochs              */
    MEST_SCHEDULE_COSINE   = 2  /* from learning_rate to learning_rate_min over config.epochs    */
};

enum { /* mest_config.schedule_flags, bits */
    MEST_SCHEDULE_BY_UPDATE = 1 /* moves with every update; default: once per epoch              */
};

enum { /* mest_config.distribution of the density over layers with mest_layer.density == 0 */
    MEST_DISTRIBUTION_UNIFORM = 0,
    MEST_DISTRIBUTION_ERK     = 1 /* Erdos-Renyi-Kernel: small layers get more, and config.density
                                     holds for all of them; not with FILTER, CHANNEL: see there  */
};

enum { /* mest_config.method: how connections come and go; drop, growth and schedule are shared */
    MEST_METHOD_STATIC  = 0, /* random connections that stay                                     */
    MEST_METHOD_VANILLA = 1, /* MEST, paper section 3: drops mutation_rate of the connections, the
                                least important, grows as many at random, always                 */
    MEST_METHOD_EM      = 2, /* Elastic Mutation: the rate decays to zero                        */
    MEST_METHOD_EMS     = 3, /* Soft memory-bound EM: grows mutation_extra beyond the target,
                                drops from old and new together; extra decays to zero            */
    MEST_METHOD_SET     = 4, /* Sparse Evolutionary Training (Mocanu et al. 2018): after every
                                epoch but the last drops mutation_rate of the positive weights,
                                the smallest, and of the negative ones, the largest; grows as
                                many at random, values N(0, 0.1^2).  Units of several weights
                                have no sign: there the smallest norms leave and growth is at 0  */
    MEST_METHOD_GMP     = 5, /* gradual magnitude pruning (Zhu, Gupta 2017): begins at
                                initial_density and drops the least important, the density
                                falling along a cubic to the target at mutation_epochs[1]; grows
                                nothing.  Needs the memory of initial_density                    */
    MEST_METHOD_RIGL    = 6, /* RigL (Evci et al. 2020): every mutation_updates updates, in place
                                of that update, drops the least important and grows those of the
                                largest gradient at 0, the share falling like half a cosine from
                                mutation_rate to 0 at mutation_epochs[1].  The gradient is that
                                of the batch (of the last micro-batch; importance_gradient LAST
                                therefore with lambda 0 only), computed some rows at a time: 16
                                bytes a connection that moves, and scratch; no dense gradient
                                exists.  Scheme UNSTRUCTURED                                     */
    MEST_METHOD_DSR     = 7, /* dynamic sparse reparameterization (Mostafa, Wang 2019): one
                                threshold for all layers, 0.001 at first; what is below it leaves
                                and as many come at 0, shared out by what each layer has kept, so
                                that connections move between layers.  The threshold doubles
                                (halves) when fewer (more) than mutation_rate of all, by a tenth
                                of that, have left.  Between epochs, before mutation_epochs[1]
                                (its authors: every 100 to 800 updates, so that the threshold is
                                found sooner).  A layer may have twice its target, and memory for
                                it.  Scheme UNSTRUCTURED                                         */
    MEST_METHOD_LOTTERY = 8, /* lottery ticket (Frankle, Carbin 2019): begins dense; every
                                mutation_every epochs, a round, mutation_rate (from 0.001 on) of
                                the connections leave, the least important of all layers, and all
                                parameters go back to their first values, until the target is
                                reached.  Schedules of the learning rate see a round as the whole
                                training.  Needs the memory of the dense network: for comparison,
                                not for devices.  Scheme UNSTRUCTURED                            */
    MEST_METHOD_SNIP    = 9, /* SNIP (Lee, Ajanthan, Torr 2019): the first step chooses, of all
                                layers together, as many as the targets add up to; see below     */
    MEST_METHOD_GRASP   = 10,/* GraSP (Wang, Zhang, Grosse 2020), of random candidates; see below */
    MEST_METHOD_GSE     = 11,/* guided stochastic exploration (Heddes et al. 2024), RIGL always
                                sparse: the gradients of as many positions as there are
                                connections, no more, are computed.  They are drawn among those
                                that are not connected, the output by the sum of |gradient| of
                                what it makes, the input by that of |value| of what it reads,
                                four tries each; of them those of the largest gradient grow, and
                                as many leave.  What leaves does not come at once.  Memory and
                                the rest as RIGL says, and 8 bytes a row and a column of scratch.
                                Scheme UNSTRUCTURED                                              */
    MEST_METHOD_SRIGL   = 12 /* constant fan-in as SRigL drops for it (Lasby et al. 2024), with
                                random growth: between epochs (SRigL: every 100 updates) drops the
                                least important of the whole layer, the share falling as RIGL's,
                                so that an output loses as many as it has that matter little;
                                then every output is filled to its constant number at random, at
                                0.  An output keeps its most important connection, and so many
                                fewer leave.  SRigL's ablation of outputs is not in this version:
                                FILTER drops outputs whole.
                                Scheme FAN_IN                                                    */
};
/* SNIP and GRASP choose once and train what they have chosen; scheme UNSTRUCTURED.
 *
 * When        The first mest_model_step() scores on its batch, the first micro-batch, before it
 *             trains on it; it reports MEST_EVENT_MUTATED, and mest_model_mutation() tells what
 *             left and came.  Whoever sets connections or momentum before (mest_model_csr_set,
 *             MEST_TENSOR_WEIGHT_MOMENTUM) has chosen: nothing is scored.  Biases, statistics,
 *             dense layers and counters are as if nothing had been scored; momentum is 0.
 * Which       The largest scores of the whole network, at least one connection of each layer; of
 *             equal ones those of earlier layers and lower positions.  Outputs may have none.
 * SNIP        Score |w * gradient| of every weight of the dense network at its random beginning,
 *             w ~ N(0, 2 / fan_in) with all inputs as fan_in.  The chosen have these values.  No
 *             dense weights or gradient exist: w is drawn again wherever it is needed, outputs are
 *             computed some rows at a time, gradients some inputs at a time, and every layer keeps
 *             its best scores only.  Until the first step the connections are random ones.
 *             Memory: there is room for twice the targets of all layers together.  A layer has room
 *             for its target, or for a level that is the same for all, at most all its positions:
 *             so small layers may become dense, and large ones get no more than their room.
 *             Scratch, of the layer that needs most, in workspace: 10 bytes a connection of its
 *             room, 8 a connection of its target, some channels of its input and output, and that
 *             of the kernels.
 *             Time: once, some steps of the dense network, and two draws of its weights (with
 *             recompute three).
 * GRASP       Begins with random connections at initial_density, in each layer, and room for them;
 *             those with the largest w * (H g) stay, at their values.  g: gradient, H g: Hessian
 *             times g, the difference of the gradients at w + e g and w - e g, where |e g| is 1/16
 *             of |w|.  Cross-entropy is that of outputs / 200, as the authors have it.  No other
 *             memory; time: once, three steps.
 *             Differs from what was published: candidates are a random part of all weights, not
 *             all; one batch, not as many samples of each class; biases, scales and dense layers
 *             take no part in g; the difference sees ReLU's kinks, and keeps some others than the
 *             exact product would.
 */

enum { /* mest_config.initial: which connections a sparse layer has when the model is created */
    MEST_INITIAL_RANDOM    = 0, /* any, at random; w ~ N(0, 2 / fan_in) with the connections of
                                   the output as fan_in, so that it keeps its variance whatever
                                   its density                                                   */
    MEST_INITIAL_MAGNITUDE = 1  /* as the MEST authors' published code: the largest |w| of a
                                   dense layer, at the values drawn, w ~ N(0, 2 / fan_in) with
                                   all inputs as fan_in, not scaled up.  Drawn one after the
                                   other, the largest kept: 16 bytes a connection of the largest
                                   layer, of workspace (mest_plan_report.mutation_bytes), no
                                   dense weights.  Outputs may start with no connection.  Scheme
                                   UNSTRUCTURED                                                  */
};

enum { /* mest_config.mutation_decay */
    MEST_DECAY_STAIRCASE = 0, /* 1, 1/2, 0 of the rate, changing at mutation_epochs              */
    MEST_DECAY_COSINE    = 1  /* half a cosine from 1 to 0, reached at mutation_epochs[1]        */
};

enum { /* mest_config.mutation_flags, bits */
    MEST_MUTATION_EXCLUDE_DROPPED = 1, /* a connection just dropped is not grown at once, unless
                                          no other is free; RIGL: nothing, there it stays where its
                                          gradient wins                                          */
    MEST_MUTATION_ROUND_COMPAT    = 2, /* counts as the authors' published code rounds them      */
    MEST_MUTATION_NORMALISED      = 4, /* |w|/mean|w| + lambda * g/mean g                        */
    MEST_MUTATION_GLOBAL          = 8  /* one threshold for all layers: together they keep as many
                                          as their densities add up to, but the most important of
                                          the network.  Growth is by layer as ever.  A layer keeps
                                          at least one.  VANILLA, EM, EMS, GMP; LOTTERY has it
                                          anyway.  Scheme UNSTRUCTURED                           */
};

enum { /* mest_config.importance_gradient: g in importance = |w| + lambda * g */
    MEST_GRADIENT_LAST     = 0, /* |gradient| of the last update                                 */
    MEST_GRADIENT_EMA      = 1, /* running mean of |gradient|; 4 bytes more a connection         */
    MEST_GRADIENT_MOMENTUM = 2  /* (1 - momentum) * |momentum buffer|                            */
};

enum { /* mest_config.forgetting_flags, bits */
    MEST_FORGETTING_MARGIN = 1, /* of samples forgotten as often those with the larger mean
                                   margin leave first.  Margin: output of the label minus the
                                   largest of the others, in training; 6 bytes a sample, 4 a
                                   sample of the batch                                           */
    MEST_FORGETTING_ORDER  = 2  /* room for an order of an earlier run, mest_model_order_set(): 4
                                   bytes a sample                                                */
};

enum { /* mest_selection.rule and mest_config.remove_rule: which samples leave the training set */
    MEST_REMOVE_NONE     = 0,
    MEST_REMOVE_COUNT    = 1, /* all that were forgotten at most remove_count times              */
    MEST_REMOVE_NUMBER   = 2, /* the remove_number least forgotten                               */
    MEST_REMOVE_FRACTION = 3  /* the remove_fraction least forgotten                             */
};

/*
 * How to train.  Start from MEST_CONFIG_INIT or mest_config_init(): they fill the first two
 * fields; every other zero is the default named beside the field.
 */
typedef struct mest_config {
    uint32_t struct_size;
    uint32_t abi_version;       /* MEST_ABI_VERSION of the caller's header                       */
    uint64_t seed;              /* of everything random: initial connections, growth, dropout    */

    /* Work and memory */
    uint32_t batch;             /* most samples in one step; required, 1 .. 65536; firmware: 1   */
    uint32_t micro_batches;     /* steps whose gradients are averaged for one update, at most
                                   65536; 0: 1; the last update of an epoch may have fewer       */
    uint32_t threads;           /* at most 256; 0: one for each processor that the calling thread
                                   may use, at most 4; results do not depend on it               */
    int32_t  simd;              /* MEST_SIMD_*; results do not depend on it                      */
    uint64_t budget_bytes;      /* refuse a plan above it; 0: no limit                           */
    uint32_t gradient_chunks;   /* partial sums of a convolution's weight gradient: more for more
                                   threads, 1 for least memory; part of the bits; 0: 16; <= 64   */
    uint32_t inference_only;    /* 1: no gradients, no state; only predict and evaluate          */

    /* Loss */
    int32_t  loss;              /* MEST_LOSS_*                                                   */
    float    label_smoothing;   /* CROSS_ENTROPY: in [0, 1): 1-s on the label, s/(K-1) on each
                                   other class                                                   */

    /* Stochastic gradient descent */
    float    learning_rate;     /* >= 0; set it: 0 trains nothing                                */
    float    momentum;          /* in [0, 1)                                                     */
    float    weight_decay;      /* L2, added to the gradient                                     */
    float    clip_norm;         /* largest Euclidean norm of the whole gradient; 0: no clipping  */
    uint32_t optimizer_flags;   /* MEST_SGD_*, MEST_NO_DECAY_*                                   */

    /* Time */
    uint32_t epochs;            /* length of the training; for COSINE, mutation decay, freezing;
                                   steps beyond it go on with the last rate                      */
    uint32_t steps_per_epoch;   /* updates in an epoch; 0: ceil(samples / (batch * micro_batches))
                                   when samples is known, else the first step begins epoch 0 and
                                   only mest_model_begin_epoch() begins others                   */
    int32_t  schedule;          /* MEST_SCHEDULE_*                                               */
    uint32_t schedule_flags;    /* MEST_SCHEDULE_BY_UPDATE                                       */
    uint32_t schedule_every;    /* STEP: epochs                                                  */
    float    schedule_gamma;    /* STEP: factor; 0: 0.1                                          */
    float    learning_rate_min; /* COSINE: final rate                                            */
    uint32_t warmup_epochs;     /* rate rises linearly over these, then the schedule takes over  */

    /* Sparsity */
    float    density;           /* of layers that name none, 1e-6 to 1; 0: 1, dense              */
    int32_t  distribution;      /* MEST_DISTRIBUTION_*                                           */
    uint32_t allow_empty_rows;  /* 0: every output starts with at least one connection where
                                   there are enough; 1: outputs may start with none.  Nothing to
                                   PATTERN and FAN_IN, where all outputs have as many, and to
                                   MEST_INITIAL_MAGNITUDE                                        */

    /* Mutation: a field is read by the methods that it names, by all where it names none, so that
       one config serves to compare them                                                         */
    int32_t  method;            /* MEST_METHOD_*                                                 */
    int32_t  mutation_decay;    /* EM, EMS: MEST_DECAY_*                                         */
    uint32_t mutation_every;    /* epochs between mutations, nothing to RIGL and GSE; 0: 5, of SET,
                                   GMP, DSR, SRIGL 1, of LOTTERY the epochs of a round, to be set;
                                   EM, EMS and GMP also mutate at mutation_epochs[1], where EMS and
                                   GMP come down to their target                                 */
    uint32_t mutation_updates;  /* RIGL, GSE: updates between mutations; 0: 100, of GSE 1000, but
                                   at least one mutation an epoch                                */
    uint32_t mutation_epochs[2];/* decay boundaries; 0: 9/16 and 3/4 of config.epochs, which must
                                   then be 2 or more for EM, EMS, GMP, RIGL, DSR, GSE, SRIGL     */
    float    mutation_rate;     /* VANILLA, EM, SET, RIGL, DSR, GSE, SRIGL: share of the
                                   connections dropped; 0: 0.2, of SET, RIGL and SRIGL 0.3, of
                                   DSR 0.1.  Of PATTERN and FAN_IN each output moves at least one
                                   kernel or connection until the rate has decayed to 0
                                   (MEST_MUTATION_ROUND_COMPAT and SRIGL: perhaps none), and
                                   keeps one                                                     */
    float    mutation_extra;    /* EMS: density above the target; 0: 0.05, for targets below 0.05
                                   half the target; the same minimum of one                      */
    float    initial_density;   /* GMP, GRASP: density at the start, not below the target; 0: 1, of
                                   GRASP 4 times the target, at most 1                           */
    uint32_t mutation_flags;    /* MEST_MUTATION_*                                               */
    int32_t  importance_gradient; /* MEST_GRADIENT_*                                             */
    float    importance_lambda; /* 0: magnitude only; the paper: 0.01                            */
    float    importance_beta;   /* EMA; 0: 0.9                                                   */

    /* Forgetting and two-phase training */
    uint32_t samples;           /* size of the training set, below 2^31; 0: do not count
                                   forgetting; to count, give the ids, all below it, with each
                                   batch                                                         */
    uint32_t phase1_epochs;     /* 0: one phase; else samples leave, by remove_rule, at the start
                                   of this epoch                                                 */
    int32_t  remove_rule;       /* MEST_REMOVE_*                                                 */
    uint32_t remove_count;
    uint32_t remove_number;
    float    remove_fraction;   /* in [0, 1)                                                     */
    uint32_t keep_lowest;       /* this many least forgotten stay; NUMBER and FRACTION take those
                                   that come next in their place, COUNT none                     */
    float    remove_class_cap;  /* most that may leave of one class, a share of its samples in
                                   the training set, in (0, 1); 0: no cap.  2 bytes a sample, and
                                   16 a class                                                    */
    uint32_t forgetting_flags;  /* MEST_FORGETTING_*                                             */

    /* Activations */
    int32_t  activations;       /* MEST_ACTIVATIONS_*                                            */
    int32_t  recompute;         /* MEST_RECOMPUTE_*                                              */

    /* Schemes */
    int32_t  scheme;            /* MEST_SCHEME_* of layers that name none                        */
    uint32_t scheme_flags;      /* MEST_PATTERNS_*                                               */

    /* Initial connections */
    int32_t  initial;           /* MEST_INITIAL_*                                                */

    /* Freezing: front layers stop training, see below mest_step_report */
    float    freeze_share;      /* share of the network's multiply-adds (mest_plan_report.macs)
                                   whose layers are frozen at the end, in [0, 1); 0: none; as a
                                   rule 2/3                                                      */
    uint32_t freeze_epochs[2];  /* the first piece freezes, all of the share is frozen; 0: 1/4
                                   and 5/8 of config.epochs, at least 1: with 2/3 a quarter less
                                   work                                                          */

    /* Sieving: samples take turns in the training set, see below mest_forgetting_report */
    float    sieve_absent;      /* share of the samples that is out of it, in [0, 1); 0: none.  4
                                   bytes for each that is out                                    */
    uint32_t sieve_every;       /* epochs between sievings; 0: 5                                 */
    float    sieve_share;       /* share of the training set that leaves each time, in [0, 1), as
                                   many come back; 0: 0.1                                        */
    uint32_t reserved;          /* 0                                                             */

    /* Returning after DIVERGED: see mest_model_step. */
    uint32_t recover_epochs;    /* a good state is kept at the start of every so many epochs;
                                   0: none                                                       */
    float    recover_rate;      /* what the learning rate is multiplied by at each return, in
                                   (0, 1]; 0: 0.5                                                */
} mest_config;

#ifdef __cplusplus
static inline mest_config mest_config_initial(void)
{
    mest_config config = mest_config(); /* zeros, without a warning for each field */
    config.struct_size = (uint32_t)sizeof config;
    config.abi_version = MEST_ABI_VERSION;
    return config;
}
#define MEST_CONFIG_INIT mest_config_initial()
#else
#define MEST_CONFIG_INIT { .struct_size = (uint32_t)sizeof(mest_config), \
                           .abi_version = MEST_ABI_VERSION }
#endif

/* Fills config with the defaults, for callers who cannot use the macro.  size: the caller's
 * sizeof(mest_config).  Errors: ARGUMENT (NULL), VERSION (a size this library does not know). */
MEST_API MEST_NODISCARD mest_status mest_config_init(mest_config *config, uint32_t size);

/* ------------------------------------------------------------------------------------ plan --- */

/* What a model will need, all in bytes, before it exists. */
typedef struct mest_plan_report {
    uint32_t struct_size;
    uint32_t alignment;         /* of the block given to mest_model_create_in()                  */
    uint64_t total_bytes;       /* the whole block: the eight below and recovery_bytes           */
    uint64_t table_bytes;       /* model header and layer table                                  */
    uint64_t weight_bytes;      /* weights, biases, scales, running statistics                   */
    uint64_t index_bytes;       /* where the connections are, in both orders                     */
    uint64_t gradient_bytes;
    uint64_t state_bytes;       /* momentum, gradient averages                                   */
    uint64_t forgetting_bytes;  /* counts per sample                                             */
    uint64_t batch_bytes;       /* per-batch bookkeeping: labels, losses, batch statistics       */
    uint64_t workspace_bytes;   /* activations, their gradients, thread buffers and the scratch
                                   of mutation, sharing one place by life-time                   */
    uint64_t activation_bytes;  /* peak of activations and their gradients inside workspace      */
    uint64_t mutation_bytes;    /* scratch of mutation inside workspace; of FILTER and CHANNEL also
                                   of mest_model_csr_set, of MEST_INITIAL_MAGNITUDE of create    */
    uint64_t dense_bytes;       /* weight + gradient + state bytes of the same network, dense    */
    uint64_t parameters;        /* of the dense network                                          */
    uint64_t active;            /* that exist at the target density                              */
    uint64_t active_peak;       /* there is room for (EMS grows above its target; SNIP may give a
                                   layer more than its own; a last block of rows is stored whole) */
    uint64_t macs;              /* multiply-adds of one sample forward at the target density     */
    uint64_t dense_macs;        /* ... of the dense network                                      */
    uint32_t layers;
    uint32_t inputs;            /* floats in one sample                                          */
    uint32_t outputs;           /* floats the network returns for it                             */
    uint32_t lanes;             /* samples computed side by side: 1, 4, 8 or 16                  */
    uint32_t steps_per_epoch;   /* as config gives it; 0: unknown                                */
    uint32_t threads;           /* that will be used                                             */
    int32_t  method;            /* MEST_METHOD_*.  All the bytes above contain what it needs;
                                   what that is beyond STATIC, a plan with STATIC tells          */
    uint32_t memory_economic;   /* 1: the sparse layers never have more than twice the
                                   connections of their targets, rounding aside; 0: they do, as
                                   with LOTTERY and GMP, which begin dense                       */
    uint64_t checkpoint_bytes;  /* the most that mest_model_save() writes at once: a slot's size */
    uint64_t recovery_bytes;    /* the good state that is kept; config.recover_epochs            */
} mest_plan_report;

enum { /* mest_layer_plan.output: where a layer's output is */
    MEST_OUTPUT_STORED     = 0, /* in memory of its own                                          */
    MEST_OUTPUT_IN_PLACE   = 1, /* in the memory of output_layer's, over it                      */
    MEST_OUTPUT_FUSED      = 2, /* nowhere: output_layer computes the values while it reads them;
                                   the first such layer, where there are several                 */
    MEST_OUTPUT_RECOMPUTED = 3  /* in memory of its own, given up in between: computed again before
                                   the backward pass of output_layer, which may be this one      */
};

/* One layer of the plan. */
typedef struct mest_layer_plan {
    uint32_t struct_size;
    int32_t  kind;
    int32_t  from;              /* index of the producing layer, counted from 0; -1: has none    */
    int32_t  with;              /* ADD: index of the second operand, else -1                     */
    uint32_t channels;          /* of the output                                                 */
    uint32_t height;
    uint32_t width;
    uint32_t rows;              /* LINEAR, CONV2D: weight matrix, outputs x (inputs * kernel); of
                                   a depthwise convolution outputs x kernel                      */
    uint32_t columns;
    float    density;           /* active / (rows * columns): what was asked, rounded to whole
                                   units of the scheme, of PATTERN and FAN_IN as many for every
                                   output; of FILTER and CHANNEL what both sides make of it, see
                                   there; 1 when dense; 0 for layers without weights             */
    uint64_t active;            /* connections at the target; expected, where the last block of a
                                   scheme lacks outputs                                          */
    uint64_t capacity;          /* connections there is room for; of blocks, a last one of fewer
                                   outputs takes the room of a whole one                         */
    uint64_t weight_bytes;      /* as in the plan, this layer's share, alignment included        */
    uint64_t index_bytes;
    uint64_t gradient_bytes;
    uint64_t state_bytes;
    uint64_t activation_bytes;  /* its output, padded to lanes and tiles; 0: IN_PLACE or FUSED.
                                   Outputs share memory by life-time, and there are gradients: the
                                   plan's activation_bytes are no sum of these                   */
    uint64_t macs;              /* one sample forward at the target density                      */
    char     name[MEST_NAME_BYTES];
    int32_t  scheme;            /* MEST_SCHEME_* in effect; 0 for layers that are not sparse.
                                   FILTER, CHANNEL: what the layer asked for, even where only its
                                   other side lacks channels (the last layer, asking for FILTER,
                                   its inputs); of layers that follow FILTER where outputs are
                                   lacking, else CHANNEL                                         */
    uint32_t unit;              /* weights that come and go together: a block's rows, a run's
                                   inputs, 4 of a pattern, 1 otherwise; 0: FILTER, CHANNEL       */
    int32_t  output;            /* MEST_OUTPUT_*                                                 */
    int32_t  output_layer;      /* index of the layer that it names; -1: STORED                  */
    int32_t  output_format;     /* MEST_ACTIVATIONS_*: how its values are stored; 0 when FUSED   */
    uint32_t alive;             /* of channels, those that exist at the target: all, but for
                                   FILTER and CHANNEL                                            */
} mest_layer_plan;

/*
 * Plans a model: checks config and layers and counts every byte.  Pure arithmetic: allocates
 * nothing, but needs stack for every layer, as create does.
 * out_plan: filled on MEST_OK and on MEST_ERR_BUDGET.
 * out_layers: `count` entries, or NULL; each struct_size set by the caller.
 * Errors: ARGUMENT, SHAPE, UNSUPPORTED, VERSION, BUDGET (the message proposes what would fit).
 */
MEST_API MEST_NODISCARD mest_status mest_plan(const mest_config *config, const mest_layer *layers,
                                              uint32_t count, mest_plan_report *out_plan,
                                              mest_layer_plan *out_layers);

/* ----------------------------------------------------------------- life: create and destroy --- */

enum { /* mest_env.log level */
    MEST_LOG_INFO = 1, MEST_LOG_WARNING = 2
};

enum { /* mest_progress.stage */
    MEST_STAGE_STEP     = 1, /* done, total: updates of this epoch (total 0: unknown)            */
    MEST_STAGE_MUTATE   = 2, /* once, before anything moves or is scored; total: sparse layers   */
    MEST_STAGE_PREDICT  = 3, /* done, total: samples                                             */
    MEST_STAGE_EVALUATE = 4  /* done, total: samples                                             */
};

typedef struct mest_progress {
    uint32_t struct_size;
    int32_t  stage;
    uint64_t done;
    uint64_t total;
    uint32_t epoch;
    float    loss;  /* of the last step; 0 before it */
} mest_progress;

/* What the model's surroundings provide; every field may be 0.  The functions are called only
 * during a call on the model, on the caller's thread, with `user` as the last argument.  A
 * callback that returns int32_t stops the call by returning non-zero: MEST_ERR_CALLBACK.  Callbacks
 * must return: no longjmp, no exception; calls on the same model from within get MEST_ERR_STATE. */
typedef struct mest_env {
    uint32_t struct_size;
    uint32_t reserved;
    void *user;
    /* size bytes aligned to alignment (a power of two), or NULL.  Default: posix_memalign. */
    void *(*allocate)(size_t size, size_t alignment, void *user);
    void (*release)(void *block, size_t size, void *user);
    void (*log)(int32_t level, const char *message, void *user);
    int32_t (*progress)(const mest_progress *progress, void *user);
    /* Calls body(argument, i, worker) once for every i below count, in any order, at the same
     * time if wanted, and returns when all are done.  worker: below mest_plan_report.threads and
     * not shared by two calls that run at the same time.  Default: the library's threads. */
    void (*parallel_for)(uint32_t count,
                         void (*body)(void *argument, uint32_t index, uint32_t worker),
                         void *argument, void *user);
} mest_env;

/*
 * Creates a model in one block of exactly mest_plan_report.total_bytes, asked from env->allocate
 * (env NULL: posix_memalign).  Connections are drawn (config.initial) straight into sparse storage.
 * Errors: those of mest_plan, MEMORY.  *out_model is NULL on failure.
 */
MEST_API MEST_NODISCARD mest_status mest_model_create(const mest_config *config,
                                                      const mest_layer *layers, uint32_t count,
                                                      const mest_env *env, mest_model **out_model);

/*
 * The same inside the caller's block, with no allocation at all, but for the library's threads
 * where config.threads wants some.  block: at least total_bytes, aligned to
 * mest_plan_report.alignment; the caller's again after mest_model_destroy().  config and layers lie
 * elsewhere.  A block of 2 KB a layer and more is planned in as well, so that layers take no stack.
 * After an error it holds anything.
 * Errors: those of mest_plan, ARGUMENT (alignment), MEMORY (block too small).
 */
MEST_API MEST_NODISCARD mest_status mest_model_create_in(const mest_config *config,
                                                         const mest_layer *layers, uint32_t count,
                                                         const mest_env *env, void *block,
                                                         size_t bytes, mest_model **out_model);

/* Ends a model and gives its block back.  NULL is fine.  Ignored while a call runs on the model. */
MEST_API void mest_model_destroy(mest_model *model);

/* The plan of an existing model; out_layers as in mest_plan.  Errors: ARGUMENT, STATE, VERSION. */
MEST_API MEST_NODISCARD mest_status mest_model_plan(const mest_model *model,
                                                    mest_plan_report *out_plan,
                                                    mest_layer_plan *out_layers);

/* -------------------------------------------------------------------------------- training --- */

typedef struct mest_batch {
    uint32_t struct_size;
    uint32_t count;          /* samples, 1 .. config.batch (evaluate: 1 and more)                */
    const float    *x;       /* count * inputs floats, all finite                                */
    const int32_t  *labels;  /* CROSS_ENTROPY: count classes in 0 .. outputs-1                   */
    const float    *targets; /* MSE: count * outputs floats                                      */
    const uint32_t *ids;     /* count sample ids below config.samples for the forgetting counts,
                                or NULL: not counted                                             */
} mest_batch;

enum { /* mest_step_report.events, bits */
    MEST_EVENT_UPDATED = 1, /* an update: weights changed, or RIGL and GSE looked for connections to
                               move in its place (not set while micro-batches gather)            */
    MEST_EVENT_EPOCH   = 2, /* an epoch began before this step                                   */
    MEST_EVENT_MUTATED = 4, /* connections were dropped or grown: when an epoch began before this
                               step; of RIGL, GSE, SNIP, GRASP in the step itself                */
    MEST_EVENT_REMOVED = 8, /* samples left the training set: phase 2 begins                     */
    MEST_EVENT_SIEVED  = 16, /* samples left the training set by sieving, others came back       */
    MEST_EVENT_RETURNED = 32 /* with DIVERGED: the model is at its last good state               */
};

typedef struct mest_step_report {
    uint32_t struct_size;
    uint32_t events;         /* MEST_EVENT_*                                                     */
    uint64_t update;         /* updates applied so far                                           */
    uint32_t epoch;          /* from 0                                                           */
    uint32_t step_in_epoch;  /* updates applied in this epoch                                    */
    float    loss;           /* mean over the samples of this call                               */
    float    learning_rate;  /* used for this update                                             */
    float    gradient_norm;  /* Euclidean, before clipping; 0 when no update was applied         */
    uint32_t correct;        /* CROSS_ENTROPY: samples whose largest output is their label       */
    uint32_t count;          /* samples of this call                                             */
    uint32_t frozen;         /* layers of the description, from the first on, that are frozen    */
} mest_step_report;

/*
 * Freezing (config.freeze_share; SpFDE: Yuan et al. 2022).  Front layers learn first, and then need
 * not be trained on.  The share of the multiply-adds that may be frozen grows by equal steps from
 * freeze_epochs[0] to freeze_epochs[1]; at the start of an epoch the first layers of the
 * description freeze as far as it reaches, never all.  A share that the first layer with weights
 * exceeds is refused (ARGUMENT).
 * A frozen layer   computes what mest_model_predict() does: batch norm by its running statistics,
 *                  no dropout (that in front of the first layer that trains goes on).  No gradient
 *                  (it reads 0), no change of momentum, weight decay or mutation; no part in the
 *                  norm that clip_norm bounds.  The backward pass ends at the first layer that
 *                  trains.  What the caller sets, mest_model_tensor_set() say, counts.
 * Before           A layer of EMS or GMP first comes down to its target: a mutation, which the
 *                  reports tell; those of other methods stay as they are.  FILTER, CHANNEL: a group
 *                  rests from when the first layer that has it is frozen.  SNIP, GRASP: nothing
 *                  freezes before the step that chooses.  LOTTERY, which rewinds: ARGUMENT.
 * Saves            of the frozen layers' mest_layer_plan.macs two of three parts of a step.  Memory
 *                  is planned for the whole training and stays.
 */

/*
 * One training step: forward, backward and, when micro_batches are complete, the update.  Begins
 * the next epoch by itself when steps_per_epoch is known and over, unless the caller begins epochs
 * (mest_model_begin_epoch).
 * out_report: or NULL.
 * Errors: ARGUMENT (batch, labels, ids, a value that is not finite), DIVERGED, CANCELLED,
 * CALLBACK, STATE.  After an error weights, state, statistics and counts are as before (but for a
 * return, below).  After DIVERGED, and CANCELLED in the middle, gradients are zero: an unfinished
 * update is dropped and MEST_GRADIENT_LAST sees none.  Connections that SNIP or GRASP have chosen
 * before the error stay, those that they have not are as before.  An epoch that this call began
 * (not after ARGUMENT and STATE) has begun; its events are in the report of the next step.
 */
MEST_API MEST_NODISCARD mest_status mest_model_step(mest_model *model, const mest_batch *batch,
                                                    mest_step_report *out_report);

/*
 * Returning (config.recover_epochs).  A good state, all that a checkpoint has, is kept in the
 * block (mest_plan_report.recovery_bytes) at the start of every so many epochs, before anything
 * of the epoch happens.  A step that diverges, or the unfinished update that
 * mest_model_begin_epoch() applies, returns the model to it: DIVERGED all the same, the message
 * says where to, and out_report has MEST_EVENT_RETURNED and the epoch that is next.  The next
 * step begins that epoch, whoever has begun the others, unless mest_model_begin_epoch() does.
 * From then on the learning rate is multiplied by recover_rate once a return, at most
 * MEST_MOST_RETURNS times in a training; checkpoints keep that, and a model that has loaded one
 * keeps its next good state when it is due.  The first good state is the new model; more come
 * where epochs are known (steps_per_epoch or samples) or the caller begins them.
 */
#define MEST_MOST_RETURNS 16u

/*
 * The same step in slices: for who has other work between two layers.  Each call does about
 * `quantum` multiply-adds, at least one layer forward or backward, and returns MEST_MORE; the
 * last returns what mest_model_step() would, and fills out_report.  The bits are those of
 * mest_model_step() whatever the quanta.  0: one layer.  mest_layer_plan.macs tells what a layer
 * has: times the samples forward, twice that backward.  What comes before the first layer, the
 * start of an epoch with its mutation, and after the last one, the update, are not divided.
 * Until the step is done give the same batch (its memory may move), and call nothing else on the
 * model (STATE) but mest_last_error(), mest_model_plan(), _cancel() and _destroy().  To drop the
 * step: mest_model_cancel(), then one call, which returns CANCELLED, whatever batch it is given;
 * the model is as before.
 * Errors: those of mest_model_step(); ARGUMENT leaves a step that is in work as it is.
 */
MEST_API MEST_NODISCARD mest_status mest_model_step_slice(mest_model *model,
                                                          const mest_batch *batch, uint64_t quantum,
                                                          mest_step_report *out_report);

typedef struct mest_epoch_report {
    uint32_t struct_size;
    uint32_t events;         /* MEST_EVENT_EPOCH, _MUTATED, _REMOVED, _SIEVED, _RETURNED         */
    uint32_t epoch;
    uint32_t steps;          /* updates this epoch will have; 0: unknown                         */
    uint32_t samples;        /* in the training set now                                          */
    uint32_t dropped;        /* connections, all layers, when mutated                            */
    uint32_t grown;
    float    learning_rate;  /* of its first update                                              */
    uint32_t frozen;         /* layers, as in mest_step_report                                   */
    uint32_t left;           /* samples that left the training set now                           */
    uint32_t returned;       /* samples that came back to it                                     */
} mest_epoch_report;

/*
 * Begins the next epoch now: the first call begins epoch 0, or the one after that of the last step.
 * From then on the caller begins epochs and mest_model_step() does not.  Applies an update whose
 * micro-batches are unfinished, as the mean of those given.  Mutates when it is time
 * (config.mutation_every), freezes layers, then, at epoch phase1_epochs or when sieving is due,
 * takes samples out of the training set and counts forgetting anew; mest_model_select() with rule
 * MEST_REMOVE_NONE tells which remain.
 * Callers who never call this get the same from mest_model_step(), but see a removal only after the
 * first batch of that epoch.
 * Samples leave only if some were learned (ids were given) and some remain; else a log line says
 * why phase 1 goes on.  When config.steps_per_epoch was 0, epochs get shorter with the training
 * set.
 * out_report: or NULL.  Errors: DIVERGED (the unfinished update, which is dropped), CANCELLED,
 * CALLBACK, STATE; the epoch has then not begun.
 */
MEST_API MEST_NODISCARD mest_status mest_model_begin_epoch(mest_model *model,
                                                           mest_epoch_report *out_report);

typedef struct mest_mutation_report {
    uint32_t struct_size;
    uint32_t mutations;      /* done so far, this one and any that moved nothing included        */
    uint32_t epoch;
    uint32_t layers;         /* sparse layers                                                    */
    uint64_t dropped;
    uint64_t grown;
    uint64_t active;         /* connections in sparse layers afterwards                          */
    uint64_t positions;      /* that they could take                                             */
    float    density;        /* active / positions                                               */
    float    explored;       /* share of positions that have ever been connected (SNIP, GRASP: since
                                they chose), as random growth lets expect it; FILTER, CHANNEL: that
                                of outputs times that of inputs; RIGL, GSE: fewer have been than
                                this says, since gradients bring back the same ones              */
} mest_mutation_report;

typedef struct mest_mutation_layer {
    uint32_t struct_size;
    uint32_t layer;          /* index in the description                                         */
    uint64_t dropped;
    uint64_t grown;
    uint64_t active;
    uint64_t positions;
    float    density;
    float    explored;
} mest_mutation_layer;

/*
 * Drops and grows now, at the phase of the current epoch, whatever mutation_every says.  In place,
 * time proportional to the connections.  Grown weights and their momentum start at 0 (SET, FILTER,
 * CHANNEL: as said there).
 * out_report: or NULL.  Errors: ARGUMENT (method is STATIC, RIGL, GSE, LOTTERY, SNIP or GRASP),
 * STATE (micro-batches unfinished), CANCELLED and CALLBACK (before the first layer is touched).
 */
MEST_API MEST_NODISCARD mest_status mest_model_mutate(mest_model *model,
                                                      mest_mutation_report *out_report);

/* What the last mutation did (zeros before the first), over all and by sparse layer.
 * out_report: or NULL.  out_layers: `capacity` entries, each struct_size set, or NULL. */
MEST_API MEST_NODISCARD mest_status mest_model_mutation(const mest_model *model,
                                                        mest_mutation_report *out_report,
                                                        mest_mutation_layer *out_layers,
                                                        uint32_t capacity);

/* ------------------------------------------------------------------------------ forgetting --- */

#define MEST_FORGETTING_BINS 64
#define MEST_NEVER_LEARNED 255u /* in counts: seen, and never answered correctly */

/* A sample is forgotten when it is answered correctly at one presentation and wrongly at the
 * next.  Counted from the training forward pass, before the update. */
typedef struct mest_forgetting_report {
    uint32_t struct_size;
    uint32_t samples;        /* config.samples                                                   */
    uint32_t seen;           /* presented at least once; this and the next three, and histogram,
                                of the training set                                              */
    uint32_t learned;        /* correct at least once                                            */
    uint32_t never_learned;  /* seen - learned                                                   */
    uint32_t unforgettable;  /* learned and never forgotten                                      */
    uint32_t training;       /* still in the training set                                        */
    uint32_t phase;          /* 1 or 2                                                           */
    uint64_t events;         /* forgettings since counting began, anew with phase 2 and with
                                every sieving                                                    */
    uint64_t events_epoch;   /* in the current epoch                                             */
    uint64_t presentations;  /* samples given to mest_model_step(), each as often as it was given */
    uint64_t presentations_saved; /* samples that were not in their epoch's training set, added up
                                over the epochs that have begun                                  */
    uint32_t histogram[MEST_FORGETTING_BINS]; /* learned samples by count; last bin: that or more */
} mest_forgetting_report;

/*
 * Sieving (config.sieve_absent; SpFDE: Yuan et al. 2022).  A share of the samples is out of the
 * training set from the beginning, and they take turns, so that fewer are presented and none is
 * given up.
 * Epoch 0   sieve_absent of the samples leave, drawn at random: the first in mest_model_order(),
 *           but for keep_lowest.
 * Then      every sieve_every epochs sieve_share of the training set leave, the least forgotten as
 *           mest_model_order() has them, but for keep_lowest, and no more than are out.  As many
 *           come back: who left first, of those that left together the one that was first in the
 *           order.
 * Counts    begin anew at each sieving, with another hash of the ids, so that equals take turns.
 *           Where none was answered correctly since, nobody moves, and a log line says so.
 *           MEST_FORGETTING_MARGIN and an order that was set count as for rules.
 * Not with  phase1_epochs (ARGUMENT), remove_class_cap (UNSUPPORTED).
 */

/* out_report: or NULL.  out_counts: `capacity` >= samples bytes, or NULL: forgettings of each
 * sample (at most 254), MEST_NEVER_LEARNED for those seen and never correct; 0 for those not seen
 * and those out of the training set.
 * Errors: STATE (config.samples is 0), ARGUMENT. */
MEST_API MEST_NODISCARD mest_status mest_model_forgetting(const mest_model *model,
                                                          mest_forgetting_report *out_report,
                                                          uint8_t *out_counts, uint64_t capacity);

typedef struct mest_selection {
    uint32_t struct_size;
    int32_t  rule;           /* MEST_REMOVE_*; NONE: the training set as it is now               */
    uint32_t remove_count;
    uint32_t remove_number;
    float    remove_fraction;
    uint32_t keep_lowest;
} mest_selection;

/*
 * Which samples a rule would keep, ids ascending; changes nothing.  Samples are ordered by
 * (forgettings, mean margin falling with MEST_FORGETTING_MARGIN, seeded hash of the id); those
 * never learned or not presented yet come last (with margins the latter after the former) and so
 * stay longest.  With config.remove_class_cap a sample stays whose class has given its share
 * already, and so does one whose class is not known, since it was not presented yet.
 * out_ids: `capacity` ids, or NULL to get only the number.  Errors: STATE, ARGUMENT.
 */
MEST_API MEST_NODISCARD mest_status mest_model_select(const mest_model *model,
                                                      const mest_selection *selection,
                                                      uint32_t *out_ids, uint64_t capacity,
                                                      uint64_t *out_count);

/*
 * All ids in the order in which rules take them, what to keep of a run for the next one, taken at
 * any time: who would leave first comes first.  So those that have left the training set come
 * before those in it, as they would leave again: by the counts with which they left; of those that
 * are out by sieving who comes back first.  O(samples log samples), no memory but the caller's.
 * out_ids: `capacity` >= samples ids, or NULL to get only the number.
 * Errors: STATE (config.samples is 0), ARGUMENT.
 */
MEST_API MEST_NODISCARD mest_status mest_model_order(const mest_model *model, uint32_t *out_ids,
                                                     uint64_t capacity, uint64_t *out_count);

/*
 * An order to go by instead of this run's counts, as mest_model_order() of an earlier run gave it,
 * or of the caller's own making: `count` different ids below config.samples, the first to leave
 * first; keep_lowest keeps the first of them.  Samples that are not named leave last.  count 0:
 * this run's counts again.  Counting goes on; rule COUNT, which asks for counts, is an error as long
 * as there is an order, and so it is for config.remove_rule.
 * Errors: STATE (no MEST_FORGETTING_ORDER), ARGUMENT (an id twice or too large; the order is as
 * before).
 */
MEST_API MEST_NODISCARD mest_status mest_model_order_set(mest_model *model, const uint32_t *ids,
                                                         uint64_t count);

/* -------------------------------------------------------------------------------- use it --- */

enum { /* mest_model_predict flags, bits */
    MEST_PREDICT_PROBABILITIES = 1 /* softmax of the outputs; for CROSS_ENTROPY */
};

/*
 * Outputs for `count` samples, any number, in inference mode (running statistics, no dropout).
 * x: count * inputs floats.  out: capacity >= count * outputs floats.
 * Errors: ARGUMENT, CANCELLED, CALLBACK, STATE; on error `out` may hold a part.
 */
MEST_API MEST_NODISCARD mest_status mest_model_predict(mest_model *model, const float *x,
                                                       uint64_t count, uint32_t flags, float *out,
                                                       uint64_t capacity);

typedef struct mest_evaluation {
    uint32_t struct_size;
    uint32_t count;
    float    loss;           /* mean over samples, without label smoothing                       */
    uint32_t correct;        /* CROSS_ENTROPY                                                    */
} mest_evaluation;

/* Loss and correct answers over batch->count samples, 1 or more, in inference mode. */
MEST_API MEST_NODISCARD mest_status mest_model_evaluate(mest_model *model, const mest_batch *batch,
                                                        mest_evaluation *out_evaluation);

/* --------------------------------------------------------------------------------- tensors --- */

enum { /* which tensor of a layer; n floats as mest_model_tensor_size says */
    MEST_TENSOR_WEIGHT          = 1, /* connections in CSR order, or dense [rows][columns]       */
    MEST_TENSOR_WEIGHT_GRADIENT = 2, /* of the last step; read only                              */
    MEST_TENSOR_WEIGHT_MOMENTUM = 3,
    MEST_TENSOR_BIAS            = 4, /* LINEAR, CONV2D; for BATCH_NORM the shift                 */
    MEST_TENSOR_BIAS_GRADIENT   = 5, /* read only                                                */
    MEST_TENSOR_BIAS_MOMENTUM   = 6,
    MEST_TENSOR_SCALE           = 7, /* BATCH_NORM                                               */
    MEST_TENSOR_SCALE_GRADIENT  = 8, /* read only                                                */
    MEST_TENSOR_SCALE_MOMENTUM  = 9,
    MEST_TENSOR_RUNNING_MEAN    = 10,
    MEST_TENSOR_RUNNING_VAR     = 11
};

/* Floats in a tensor; ARGUMENT when the layer has no such tensor. */
MEST_API MEST_NODISCARD mest_status mest_model_tensor_size(const mest_model *model, uint32_t layer,
                                                           int32_t tensor, uint64_t *out_count);

/* Copies a tensor out.  count: exactly its size. */
MEST_API MEST_NODISCARD mest_status mest_model_tensor_get(const mest_model *model, uint32_t layer,
                                                          int32_t tensor, float *out,
                                                          uint64_t count);

/* Copies values, all finite, into a tensor.  Gradients cannot be set. */
MEST_API MEST_NODISCARD mest_status mest_model_tensor_set(mest_model *model, uint32_t layer,
                                                          int32_t tensor, const float *values,
                                                          uint64_t count);

/*
 * The weights of a sparse layer: compressed sparse rows of the matrix
 * [rows = outputs][columns = input channel * kernel_h * kernel_w + row * kernel_w + column].
 *
 * Where mest_layer_plan.unit is 1 this is a view of them as they lie in memory: the pointers belong
 * to the model and are valid until it mutates, is set or is destroyed; values change with every
 * update.  Blocks, runs and patterns lie in another order, FILTER and CHANNEL have no index.  Their
 * rows are copied to `buffer`, memory of the caller that the pointers then lead into.  With buffer
 * NULL the call tells the size, buffer_bytes, and leaves the four pointers NULL.  A buffer that is
 * given stays as it was: one struct serves layer after layer.
 */
typedef struct mest_csr {
    uint32_t struct_size;
    uint32_t rows;
    uint32_t columns;
    uint32_t count;               /* connections                                                 */
    uint32_t capacity;            /* the layer's, mest_layer_plan.capacity (set: ignored)        */
    uint32_t reserved;
    const uint32_t *row_start;    /* rows + 1                                                    */
    const uint16_t *column;       /* count, ascending inside a row                               */
    const float    *value;        /* count                                                       */
    const float    *momentum;     /* count; NULL when inference_only (set: NULL means zeros)     */
    void           *buffer;       /* get, unit above 1: or NULL; 4-byte aligned (set: ignored)   */
    uint64_t        buffer_bytes; /* what buffer has; with buffer NULL, out: what it needs, 0 where
                                     the layer is a view                                          */
} mest_csr;

/* Errors: ARGUMENT (layer is dense or has no weights, buffer too small), STATE. */
MEST_API MEST_NODISCARD mest_status mest_model_csr_get(const mest_model *model, uint32_t layer,
                                                       mest_csr *out_csr);

/*
 * Replaces connections and values.  They may be more or fewer than the layer has, as far as its
 * capacity suffices; the next mutation brings them to the target.  The capacity that a set needs is
 *     UNSTRUCTURED, PATTERN, NM24, FAN_IN  its count
 *     BLOCK4, BLOCK8, BLOCK16  the columns of every block, added up, times 4, 8, 16: its count,
 *                              with the last block as if it lacked no outputs
 *     ROW4, ROW8, ROW16        its runs times 4, 8, 16: its count, with the last run as if it
 *                              lacked no inputs
 *     FILTER, CHANNEL          its outputs and its inputs, each what there is room for
 * FILTER, CHANNEL: the rows that are not empty have the same columns, whole channels of them.
 * Their channels exist from then on and no others: in every layer of the group those that do not
 * leave, and those that are new begin as grown ones.  So layers set one after the other become what
 * they were.
 * Errors: ARGUMENT (shape, order, range, not finite, more than the capacity: the message says what
 * is needed), UNSUPPORTED (connections that the layer's scheme cannot have).
 */
MEST_API MEST_NODISCARD mest_status mest_model_csr_set(mest_model *model, uint32_t layer,
                                                       const mest_csr *csr);

/* ----------------------------------------------------------------------------- checkpoints --- */

/*
 * A checkpoint has all that continuing needs: weights, connections, optimizer state, statistics,
 * forgetting counts, gathered micro-batches, and the position in training, of which everything
 * random is a function.  Saved at any moment between two calls and loaded into a new model of the
 * same description and config, in another process or on another machine, training goes on to the
 * same bits as if it had never stopped.  What the caller feeds is the caller's: which sample comes
 * next follows from mest_checkpoint_report.
 *
 * The bytes are the same for every number of threads, instruction set, pointer size and byte order;
 * each section of them has a CRC-32, which covers all bytes before it as well.  Later versions load
 * what earlier ones have saved.
 *
 * Power may go at any byte of a save: there are two slots, and a save writes to the one that is not
 * the newest whole one.  So a load finds the state before or after that save, and says which.
 */

/* Where checkpoints are kept.  The functions are called during a save or load, on the caller's
 * thread, and return 0, or an error, which stops the call: MEST_ERR_IO.  Slots are 0 and 1, with
 * room for mest_plan_report.checkpoint_bytes each; offsets begin at 0 in both. */
typedef struct mest_io {
    uint32_t struct_size;
    uint32_t minimum_updates; /* a save sooner than so many updates after the last does nothing   */
    void *user;
    /* Of any bytes below checkpoint_bytes, also such as were never written.  Load reads twice. */
    int32_t (*read)(uint32_t slot, uint64_t offset, void *bytes, size_t count, void *user);
    /* A save writes ascending offsets without gaps, at multiples of MEST_CHECKPOINT_CHUNK and, but
     * for the last, so many bytes.  Offset 0 begins a save: flash erases the slot then. */
    int32_t (*write)(uint32_t slot, uint64_t offset, const void *bytes, size_t count, void *user);
    /* Returns when what was written will survive.  Called before and after a save's last write. */
    int32_t (*sync)(uint32_t slot, void *user);
} mest_io;

#define MEST_CHECKPOINT_CHUNK 1024u

enum { /* mest_model_load flags, bits */
    MEST_LOAD_OTHER_SETTINGS = 1 /* fields of the config that no stored value depends on may
                                    differ, the learning rate say: training goes on with the
                                    model's own; micro_batches too, between two updates          */
};

typedef struct mest_checkpoint_report {
    uint32_t struct_size;
    int32_t  slot;           /* written or loaded; 0 for files; -1: none, see minimum_updates     */
    uint64_t sequence;       /* number of the checkpoint: one more than the one before           */
    uint64_t bytes;          /* of the checkpoint                                                */
    uint64_t bytes_written;  /* by all saves of this training, resumed ones included: wear of
                                flash                                                            */
    uint64_t updates;        /* applied so far                                                   */
    uint32_t epochs;         /* begun so far                                                     */
    uint32_t step_in_epoch;  /* updates applied in this epoch                                    */
    uint32_t batches_in_epoch; /* steps given in this epoch                                      */
    uint32_t damaged;        /* load: slots with something that is no whole checkpoint, as an
                                interrupted save leaves it                                       */
} mest_checkpoint_report;

/*
 * Saves the model.  Allocates nothing.  Reads the newest slot once, so as not to overwrite it.
 * out_report: or NULL.  Errors: IO (the slot in work is damaged, the other is as before), ARGUMENT,
 * STATE.
 */
MEST_API MEST_NODISCARD mest_status mest_model_save(mest_model *model, const mest_io *io,
                                                    mest_checkpoint_report *out_report);

/*
 * Loads the newest checkpoint that is whole.  The model's description and config must be those of
 * the model that was saved (names, threads, simd, budget_bytes and recompute aside; see
 * MEST_LOAD_OTHER_SETTINGS): the message says what differs.  Everything is checked before anything
 * changes.
 * out_report: or NULL.  Errors: CORRUPT (no whole checkpoint), VERSION (of a later version),
 * ARGUMENT (of another model), IO, STATE.  If the second reading differs from the first, because
 * the device fails, the model begins anew, as mest_model_create() made it: IO, and the message says
 * so.
 */
MEST_API MEST_NODISCARD mest_status mest_model_load(mest_model *model, const mest_io *io,
                                                    uint32_t flags,
                                                    mest_checkpoint_report *out_report);

/*
 * mest_model_save() in a file.  Writes path.tmp, forces it to the disk and renames it: `path` is the state
 * before or after.  One model, one path: of two processes that save to the same one at the
 * same time the second gets IO, and its message says why.  Errors: also UNSUPPORTED, in builds
 * without an operating system.
 */
MEST_API MEST_NODISCARD mest_status mest_model_save_file(mest_model *model, const char *path,
                                                         mest_checkpoint_report *out_report);
/* mest_model_load() from a file.  Errors: also UNSUPPORTED, as above. */
MEST_API MEST_NODISCARD mest_status mest_model_load_file(mest_model *model, const char *path,
                                                         uint32_t flags,
                                                         mest_checkpoint_report *out_report);

/* ---------------------------------------------------------------------------------- cancel --- */

/* Asks the call that is running, or the next one that can be long, to stop with
 * MEST_ERR_CANCELLED; the request is then used up.  From any thread or signal handler.  NULL is
 * fine.  The model stays usable. */
MEST_API void mest_model_cancel(mest_model *model);

#ifdef __cplusplus
}
#endif

#endif /* MEST_H */
