/* The rows of the kernel table, fastest last, and which of them this CPU can run. */
#ifndef BN_DISPATCH_H
#define BN_DISPATCH_H

#include <string.h>

#include "cpu.h"
#include "kernels.h"
#include "kernels/scalar.h"
#include "kernels/scalar_dense.h"
#include "kernels/scalar_screen.h"
#if defined(__x86_64__) || defined(_M_X64)
#define BN_X86 1
#include "kernels/avx2.h"
#include "kernels/avx2_dense.h"
#include "kernels/avx2_float.h"
#include "kernels/avx512_float.h"
#include "kernels/avx2_screen.h"
#include "kernels/avx2_tables.h"
#include "kernels/avx512vnni.h"
#include "kernels/avx512vnni_dense.h"
#include "kernels/avx512vnni_gemm.h"
#include "kernels/avx512vnni_screen.h"
#if !defined(__GNUC__) || defined(__clang__) || __GNUC__ >= 11
#define BN_X86_VEX_VNNI 1
#include "kernels/avxvnni.h"
#include "kernels/avxvnni_dense.h"
#endif
#elif defined(__aarch64__) || defined(_M_ARM64)
#define BN_ARM64 1
#include "kernels/neon.h"
#include "kernels/neon_dense.h"
#include "kernels/neon_float.h"
#include "kernels/neon_screen.h"
/* Clang before 16 (Apple's before 15) has only the intrinsics of the whole file's target. */
#if !defined(__clang__) || __clang_major__ >= 16 ||                                            \
    (defined(__apple_build_version__) && __clang_major__ >= 15)
#define BN_ARM64_DOT 1
#include "kernels/neondot.h"
#include "kernels/neondot_dense.h"
#include "kernels/neoni8mm.h"
#endif
#endif

typedef struct bn_table_row {
    int needs; /* BN_CPU_* bits */
    bn_kernels kernels;
} bn_table_row;

#define BN_FLOAT_OPERATIONS(ISA)                                                               \
    .float_name = #ISA, .rms_norm = bn_rms_norm_##ISA, .dot_rows_f16 = bn_dot_rows_f16_##ISA,  \
    .dot_rows_f32 = bn_dot_rows_f32_##ISA, .multiply_add = bn_multiply_add_##ISA,              \
    .f16_to_f32 = bn_f16_to_f32_##ISA, .f32_to_f16 = bn_f32_to_f16_##ISA,                      \
    .i8_to_f32 = bn_i8_to_f32_##ISA, .transpose = bn_transpose_##ISA,                          \
    .softmax_step = bn_softmax_step_##ISA, .scale_tile = bn_scale_tile_##ISA,                  \
    .relu2_mul = bn_relu2_mul_##ISA, .silu_mul = bn_silu_mul_##ISA, .gelu_mul = bn_gelu_mul_##ISA,     \
    .decode_ternary = bn_decode_ternary_##ISA

#ifdef __clang__
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Winitializer-overrides" /* one of a row's float operations */
#endif
static const bn_table_row bn_table[] = {
    {0,
     {.name = "scalar",
      .ternary_gemv = bn_ternary_gemv_scalar,
      .gemm_rows = BN_GEMM_TILE_ROWS,
      .lanes = 1,
      .ternary_gemm = bn_ternary_gemm_scalar,
      .dense_gemv = bn_dense_gemv_scalar,
      .dense_pack = bn_dense_pack_scalar,
      .dense_unpack = bn_dense_unpack_scalar,
      .quantize = bn_quantize_scalar,
      .screen_sums = bn_screen_sums_scalar,
      .screen_encode = bn_screen_encode_scalar,
      BN_FLOAT_OPERATIONS(scalar)}},
#ifdef BN_X86
    {BN_CPU_AVX2,
     {.name = "avx2",
      .ternary_gemv = bn_ternary_gemv_avx2,
      .gemm_rows = BN_GEMM_TILE_ROWS,
      .lanes = BN_AVX2_LANES,
      .ternary_gemm = bn_ternary_gemm_avx2,
      .ternary_gemm_wide = bn_ternary_gemm_wide_avx2,
      .dense_gemv = bn_dense_gemv_avx2,
      .dense_pack = bn_dense_pack_avx2,
      .dense_unpack = bn_dense_unpack_avx2,
      .quantize = bn_quantize_avx2,
      .screen_sums = bn_screen_sums_avx2,
      .screen_encode = bn_screen_encode_avx2,
      BN_FLOAT_OPERATIONS(avx2)}},
#ifdef BN_X86_VEX_VNNI
    {BN_CPU_AVX2 | BN_CPU_AVXVNNI,
     {.name = "avxvnni",
      .ternary_gemv = bn_ternary_gemv_avxvnni,
      .gemm_rows = BN_GEMM_TILE_ROWS,
      .lanes = BN_AVXVNNI_LANES,
      .ternary_gemm = bn_ternary_gemm_avxvnni,
      .dense_gemv = bn_dense_gemv_avxvnni,
      .dense_pack = bn_dense_pack_avx2,
      .dense_unpack = bn_dense_unpack_avx2,
      .quantize = bn_quantize_avx2,
      .screen_sums = bn_screen_sums_avx2,
      .screen_encode = bn_screen_encode_avx2,
      BN_FLOAT_OPERATIONS(avx2)}},
#endif
    {BN_CPU_AVX2 | BN_CPU_AVX512VNNI,
     {.name = "avx512vnni",
      .ternary_gemv = bn_ternary_gemv_avx512vnni,
      .gemm_rows = BN_AVX512VNNI_ROWS,
      .lanes = 1,
      .by_token = 1,
      .ternary_gemm = bn_ternary_gemm_avx512vnni,
      .dense_gemv = bn_dense_gemv_avx512vnni,
      .dense_pack = bn_dense_pack_avx2,
      .dense_unpack = bn_dense_unpack_avx2,
      .quantize = bn_quantize_avx512,
      .screen_sums = bn_screen_sums_avx512vnni,
      .screen_encode = bn_screen_encode_avx2,
      BN_FLOAT_OPERATIONS(avx2),
      .multiply_add = bn_multiply_add_avx512,
      .softmax_step = bn_softmax_step_avx512}},
#endif
#ifdef BN_ARM64
    {0,
     {.name = "neon",
      .ternary_gemv = bn_ternary_gemv_neon,
      .gemm_rows = BN_GEMM_TILE_ROWS,
      .lanes = BN_NEON_LANES,
      .ternary_gemm = bn_ternary_gemm_neon,
      .dense_gemv = bn_dense_gemv_neon,
      .dense_pack = bn_dense_pack_neon,
      .dense_unpack = bn_dense_unpack_neon,
      .quantize = bn_quantize_neon,
      .screen_sums = bn_screen_sums_neon,
      .screen_encode = bn_screen_encode_scalar,
      BN_FLOAT_OPERATIONS(neon)}},
#endif
#ifdef BN_ARM64_DOT
    {BN_CPU_DOTPROD,
     {.name = "neondot",
      .ternary_gemv = bn_ternary_gemv_neondot,
      .gemm_rows = BN_GEMM_TILE_ROWS,
      .lanes = BN_NEONDOT_LANES,
      .ternary_gemm = bn_ternary_gemm_neondot,
      .dense_gemv = bn_dense_gemv_neondot,
      .dense_pack = bn_dense_pack_neon,
      .dense_unpack = bn_dense_unpack_neon,
      .quantize = bn_quantize_neon,
      .screen_sums = bn_screen_sums_neon,
      .screen_encode = bn_screen_encode_scalar,
      BN_FLOAT_OPERATIONS(neon)}},
    {BN_CPU_DOTPROD | BN_CPU_I8MM,
     {.name = "neoni8mm",
      .ternary_gemv = bn_ternary_gemv_neoni8mm,
      .gemm_rows = BN_GEMM_TILE_ROWS,
      .lanes = BN_NEONI8MM_LANES,
      .ternary_gemm = bn_ternary_gemm_neoni8mm,
      .dense_gemv = bn_dense_gemv_neondot,
      .dense_pack = bn_dense_pack_neon,
      .dense_unpack = bn_dense_unpack_neon,
      .quantize = bn_quantize_neon,
      .screen_sums = bn_screen_sums_neon,
      .screen_encode = bn_screen_encode_scalar,
      BN_FLOAT_OPERATIONS(neon)}},
#endif
};
#ifdef __clang__
#pragma clang diagnostic pop
#endif

enum { BN_TABLE_ROWS = sizeof bn_table / sizeof bn_table[0] };

/* Row i of the table, or NULL past its end or where the CPU lacks an instruction it needs. */
static const bn_kernels *bn_runnable(int i) {
    if (i < 0 || i >= BN_TABLE_ROWS) return NULL;
    return (bn_table[i].needs & ~bn_cpu_features()) ? NULL : &bn_table[i].kernels;
}

static const char *bn_table_name(int i) { return bn_table[i].kernels.name; }

/* Operations by the names that users know, and where the table has them. */
static const struct {
    const char *name;
    size_t at;
} bn_operations[] = {
    {"ternary_gemv", offsetof(bn_kernels, ternary_gemv)},
    {"ternary_gemm", offsetof(bn_kernels, ternary_gemm)},
    {"dense_gemv", offsetof(bn_kernels, dense_gemv)},
    {"quantize", offsetof(bn_kernels, quantize)},
    {"rms_norm", offsetof(bn_kernels, rms_norm)},
    {"attention", offsetof(bn_kernels, multiply_add)},
    {"softmax", offsetof(bn_kernels, softmax_step)},
    {"activation", offsetof(bn_kernels, relu2_mul)},
    {"head", offsetof(bn_kernels, dot_rows_f16)},
    {"head_screen", offsetof(bn_kernels, screen_sums)},
    {"float16", offsetof(bn_kernels, f16_to_f32)},
};

enum { BN_OPERATIONS = sizeof bn_operations / sizeof bn_operations[0] };

static inline const char *bn_operation_name(int i) { return bn_operations[i].name; }

/* The name of the first row that has the function which these kernels run an operation with. */
static inline const char *bn_operation_kernel(const bn_kernels *kernels, int i) {
    const size_t at = bn_operations[i].at;
    int row = 0;
    while (memcmp((const char *)&bn_table[row].kernels + at, (const char *)kernels + at,
                  sizeof kernels->quantize))
        row++;
    return bn_table[row].kernels.name;
}

#endif
