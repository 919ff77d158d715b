"""The C declarations the Cython modules share."""

from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "csrc/kernels.h" nogil:
    enum:
        BN_BLOCK
        BN_BLOCK_BYTES
        BN_GEMV_TOKENS
        BN_GEMM_ROWS
        BN_WIDE_LEAST
        BN_WIDE_ROWS
        BN_WIDE_TOKENS
        BN_WIDE_SCRATCH
        BN_DENSE_BLOCK

    ctypedef struct bn_kernels:
        const char *name
        int gemm_rows
        int lanes
        int by_token
        void (*ternary_gemv)(const uint8_t *, ptrdiff_t, int, const int8_t *, int,
                             const int32_t *, int32_t *) noexcept nogil
        void (*ternary_gemm)(const uint8_t *, ptrdiff_t, int, const int8_t *, int,
                             const int32_t *, int32_t *, ptrdiff_t, uint8_t *) noexcept nogil
        void (*ternary_gemm_wide)(const uint8_t *, ptrdiff_t, int, const int8_t *, int,
                                  const int32_t *, int32_t *, ptrdiff_t,
                                  uint8_t *) noexcept nogil
        void (*dense_gemv)(const uint8_t *, ptrdiff_t, int, const int8_t *, int, const int32_t *,
                           int32_t *) noexcept nogil
        void (*dense_pack)(const uint8_t *, ptrdiff_t, int, uint8_t *, ptrdiff_t) noexcept nogil
        void (*dense_unpack)(const uint8_t *, ptrdiff_t, int, uint8_t *, ptrdiff_t) noexcept nogil
        float (*quantize)(const float *, ptrdiff_t, int8_t *, int32_t *) noexcept nogil
        void (*rms_norm)(const float *, const float *, ptrdiff_t, float, float *) noexcept nogil
        void (*dot_rows_f16)(const uint16_t *, ptrdiff_t, int, const float *, ptrdiff_t,
                             float *) noexcept nogil
        void (*dot_rows_f32)(const float *, ptrdiff_t, int, const float *, ptrdiff_t,
                             float *) noexcept nogil
        void (*f16_to_f32)(const uint16_t *, ptrdiff_t, float *) noexcept nogil
        void (*f32_to_f16)(const float *, ptrdiff_t, uint16_t *) noexcept nogil
        void (*i8_to_f32)(const int8_t *, ptrdiff_t, float *) noexcept nogil
        void (*softmax_step)(float *, ptrdiff_t, ptrdiff_t, ptrdiff_t, float *, float *,
                             float *) noexcept nogil
        void (*relu2_mul)(float *, const float *, ptrdiff_t) noexcept nogil
        void (*silu_mul)(float *, const float *, ptrdiff_t) noexcept nogil
        void (*gelu_mul)(float *, const float *, ptrdiff_t) noexcept nogil
        void (*decode_ternary)(const uint8_t *, ptrdiff_t, const float *, int,
                               float *) noexcept nogil


cdef extern from "csrc/network.h" nogil:
    ctypedef struct bn_linear:
        const uint8_t *codes
        ptrdiff_t rows
        ptrdiff_t cols
        ptrdiff_t blocks
        float scale
        const float *scales
        ptrdiff_t scale_stride
        int scale_shift

    ctypedef enum bn_matrix_type:
        BN_F32
        BN_F16
        BN_BF16
        BN_Q8_0
        BN_Q6_K
        BN_Q4_0

    ctypedef struct bn_matrix:
        const uint8_t *data
        ptrdiff_t rows
        ptrdiff_t cols
        ptrdiff_t row_bytes
        bn_matrix_type type

    ctypedef struct bn_layer:
        bn_linear q
        bn_linear k
        bn_linear v
        bn_linear o
        bn_linear gate
        bn_linear up
        bn_linear down
        const float *attn_norm
        const float *ffn_norm
        const float *attn_sub_norm
        const float *ffn_sub_norm
        const float *qkv_norms[3]
        const float *gate_up_norms[2]
        const float *q_norm
        const float *k_norm
        const float *attn_post_norm
        const float *ffn_post_norm
        ptrdiff_t window
        ptrdiff_t rope

    ctypedef enum bn_activation:
        BN_RELU2
        BN_SILU
        BN_GELU

    ctypedef struct bn_network:
        ptrdiff_t n_layers
        ptrdiff_t hidden
        ptrdiff_t ffn
        ptrdiff_t n_heads
        ptrdiff_t n_kv_heads
        ptrdiff_t head_dim
        ptrdiff_t vocab
        float norm_eps
        float embedding_scale
        float attention_scale
        int rope_interleaved
        ptrdiff_t n_ropes
        const double *rope_frequency
        const double *rope_factor
        int causal
        int weight_only
        bn_activation activation
        int dense
        const bn_layer *layers
        bn_matrix embedding
        bn_matrix head
        const float *output_norm
