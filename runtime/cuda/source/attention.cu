// Attention over the paged cache: keys and values (blocks, kv heads, 64 tokens) as runtime/kernels/kept.py has values, rows of f16
// padded to a multiple of 8 values; a row of a step is one token of one sequence.

#define BLOCK_TOKENS 64
#define WIDEST_HEAD 640
#define ATTEND_THREADS 128

struct Heads {
    int q, kv, key, value;  // heads of q and of k and v; sizes
    float scale;
    int window;     // so many tokens are seen, the own one included; 0: all
    float value_eps;  // values are normed by head, with this epsilon; 0: they stay
    float softcap;  // scores s become softcap * tanh(s / softcap); 0: they stay
};

// The first token that the last one of `length` sees.
__device__ __forceinline__ int first_seen(const Heads& heads, int length) {
    return heads.window ? max(0, length - heads.window) : 0;
}

struct Pages {
    const int *positions, *sequences, *tables;  // of every row; blocks of every sequence, `width` of them
    int width, bits;  // of a value: 16, 8 or 4
    u8 *keys, *values;
};

// Bytes of a head's keys, or values, in one block: those of the rows, and the scales behind them.
__device__ __forceinline__ int row_bytes(int bits, int size) { return bits == 16 ? (size + 7) / 8 * 16 : size * bits / 8; }
__device__ __forceinline__ int head_bytes(int bits, int size) {
    return BLOCK_TOKENS * (row_bytes(bits, size) + (bits == 16 ? 0 : size / 32 * 2));
}

// What a kv head has in the block of a token.
__device__ __forceinline__ u64 place(const Heads& heads, const int* table, int head, int token, int bits, int size) {
    return ((u64)table[token / BLOCK_TOKENS] * heads.kv + head) * head_bytes(bits, size);
}

// Hadamard's transform of each 2**n values of a head, the largest that divide its size, by a warp: see runtime/kernels/store.py.
// The size is a multiple of 32, so that each lane has the same place in every 32 values: only these are exchanged between lanes.
__device__ __forceinline__ void spread(float* x, int size) {
    const int span = size & -size, lane = threadIdx.x & 31;
#pragma unroll 4
    for (int i = lane; i < size; i += 32) {
        float value = x[i];
#pragma unroll
        for (int half = 1; half < 32; half *= 2) {
            const float other = __shfl_xor_sync(FULL, value, half);
            value = lane & half ? other - value : value + other;
        }
        x[i] = value;
    }
    for (int half = 32; half < span; half *= 2)
        for (int i = lane; i < size; i += 32)
            if (!(i & half)) {
                const float a = x[i], b = x[i + half];
                x[i] = a + b, x[i + half] = a - b;
            }
    const float share = 1.0f / sqrtf((float)span);
    for (int i = lane; i < size; i += 32) x[i] *= share;
    __syncwarp();
}

// A head's key or value goes to token `slot` of its block at `block`, by a warp; rounded as runtime/kernels/store.py does.
__device__ __forceinline__ void keep(const float* x, int size, int bits, u8* block, int slot) {
    const int lane = threadIdx.x & 31;
    u8* row = block + slot * row_bytes(bits, size);
    if (bits == 16) {
        for (int i = lane; i < size; i += 32) reinterpret_cast<u16*>(row)[i] = to_half(x[i]);
        return;
    }
    u16* scales = reinterpret_cast<u16*>(block + BLOCK_TOKENS * row_bytes(bits, size)) + slot * (size / 32);
#pragma unroll 4
    for (int i = lane; i < size; i += 32) {
        float peak;
        if (bits == 8) {
            peak = warp_max(fabsf(x[i]));
        } else {
            const float high = fmaxf(warp_max(x[i]), 0.0f), low = fminf(-warp_max(-x[i]), 0.0f);
            peak = -low > high ? low : high;
        }
        const float scale = peak / (bits == 8 ? 127.0f : -8.0f);
        const float value = x[i] * (fabsf(scale) > 1e-30f ? 1.0f / scale : 0.0f);
        if (lane == 0) scales[i / 32] = to_half(scale);
        if (bits == 8) {
            row[i] = (u8)((int)(value + 128.5f) - 128);
        } else {
            const int q = min((int)(value + 8.5f), 15), other = __shfl_xor_sync(FULL, q, 16);
            if (lane < 16) row[i / 2 - lane / 2 + lane] = (u8)(q | other << 4);
        }
    }
}

// A warp for each head of q, k and v of a row: norm (where there is a weight), turn, and store k and v; q stays where it is.
extern "C" __global__ void rotate_store(float* q, const float* k, const float* v, const float* q_norm, const float* k_norm, float eps,
                                        const float2* turns, int half, int interleaved, Heads heads, Pages pages, const int* rows) {
    after_previous();
    __shared__ float shared[8][WIDEST_HEAD];
    const int lane = threadIdx.x & 31, each = heads.q + 2 * heads.kv;
    const int task = blockIdx.x * 8 + (threadIdx.x >> 5), row = task / each, head = task % each;
    if (row >= *rows) return;
    const bool is_q = head < heads.q, is_k = !is_q && head < heads.q + heads.kv;
    const int own = is_q ? head : is_k ? head - heads.q : head - heads.q - heads.kv;
    const int size = is_q || is_k ? heads.key : heads.value;
    const float* from = is_q ? q + ((u64)row * heads.q + own) * size : (is_k ? k : v) + ((u64)row * heads.kv + own) * size;
    float* x = shared[threadIdx.x >> 5];
    const float* norm = is_q ? q_norm : is_k ? k_norm : nullptr;
    float total = 0;
    for (int i = lane; i < size; i += 32) x[i] = from[i], total += x[i] * x[i];
    if (norm) {
        const float scale = 1.0f / sqrtf(warp_sum(total) / size + eps);
        for (int i = lane; i < size; i += 32) x[i] = x[i] * scale * norm[i];
    } else if (!is_q && !is_k && heads.value_eps) {
        const float scale = 1.0f / sqrtf(warp_sum(total) / size + heads.value_eps);
        for (int i = lane; i < size; i += 32) x[i] *= scale;
    }
    __syncwarp();
    if (is_q || is_k)
        for (int i = lane; i < half; i += 32) {
            const int a = interleaved ? 2 * i : i, b = interleaved ? a + 1 : i + half;
            const float2 turn = turns[row * half + i];
            const float xa = x[a], xb = x[b];
            x[a] = xa * turn.x - xb * turn.y, x[b] = xa * turn.y + xb * turn.x;
        }
    __syncwarp();
    if (pages.bits != 16) spread(x, size);
    if (is_q) {
        for (int i = lane; i < size; i += 32) q[((u64)row * heads.q + own) * size + i] = x[i];
        return;
    }
    const int *table = pages.tables + (u64)pages.sequences[row] * pages.width, token = pages.positions[row];
    u8* block = (is_k ? pages.keys : pages.values) + place(heads, table, own, token, pages.bits, size);
    keep(x, size, pages.bits, block, token % BLOCK_TOKENS);
}

// Eight values of a row as they are kept.
template <int BITS> struct Eighth {
    u32 q[BITS == 16 ? 4 : 2], scale;

    // Values from `at` on of token `slot`.
    __device__ __forceinline__ void load(const u8* block, int size, int slot, int at) {
        const u8* row = block + slot * row_bytes(BITS, size);
        if constexpr (BITS == 16) {
            const uint4 v = *reinterpret_cast<const uint4*>(row + 2 * at);
            q[0] = v.x, q[1] = v.y, q[2] = v.z, q[3] = v.w;
        } else {
            const uint2 v = *reinterpret_cast<const uint2*>(row + (BITS == 8 ? at : at / 32 * 16 + at % 16));
            q[0] = v.x, q[1] = v.y;
            if (BITS == 4) q[0] = q[0] >> (at & 16) / 4 & 0x0f0f0f0f, q[1] = q[1] >> (at & 16) / 4 & 0x0f0f0f0f;
            scale = short_at(block + BLOCK_TOKENS * row_bytes(BITS, size) + 2 * (slot * (size / 32) + at / 32));
        }
    }

    __device__ __forceinline__ void values(float* x) const {
        if constexpr (BITS == 16) {
#pragma unroll
            for (int i = 0; i < 8; i++) x[i] = half_bits(q[i / 2] >> 16 * (i % 2) & 0xffff);
        } else {
            const u32 flip = BITS == 8 ? 0x80808080 : 0, shifted[2] = {q[0] ^ flip, q[1] ^ flip};
            const float d = half_bits(scale);
            scaled(x, shifted, d, (BITS == 8 ? -128.0f : -8.0f) * d);
        }
    }
};

// Tokens of a text, one after the other, in f16: (kv heads, tokens, size), rows padded as in the cache. Grid: (blocks, kv heads);
// `blocks`: those of these tokens, of which there are `tokens`.
template <int BITS> __device__ void gather_part(const u8* cache, const int* blocks, u16* out, int kv, int size, int tokens) {
    const int eighths = (size + 7) / 8, first = blockIdx.x * BLOCK_TOKENS;
    const u8* block = cache + ((u64)blocks[blockIdx.x] * kv + blockIdx.y) * head_bytes(BITS, size);
    for (int i = threadIdx.x; i < min(BLOCK_TOKENS, tokens - first) * eighths; i += blockDim.x) {
        const int slot = i / eighths, at = i % eighths * 8;
        Eighth<BITS> kept;
        float x[8];
        kept.load(block, size, slot, at), kept.values(x);
        uint4 packed = {to_halves(x[0], x[1]), to_halves(x[2], x[3]), to_halves(x[4], x[5]), to_halves(x[6], x[7])};
        *reinterpret_cast<uint4*>(out + ((u64)blockIdx.y * tokens + first + slot) * eighths * 8 + at) = packed;
    }
}

extern "C" __global__ void gather_text(const u8* cache, const int* blocks, u16* out, int bits, int kv, int size, int tokens) {
    after_previous();
    if (bits == 16) gather_part<16>(cache, blocks, out, kv, size, tokens);
    else if (bits == 8) gather_part<8>(cache, blocks, out, kv, size, tokens);
    else gather_part<4>(cache, blocks, out, kv, size, tokens);
}

// `spread` of all heads of a step's rows, (heads, size), in place; 256 threads.
extern "C" __global__ void spread_heads(float* x, int heads, int size) {
    after_previous();
    __shared__ float shared[8][WIDEST_HEAD];
    const int head = blockIdx.x * 8 + (threadIdx.x >> 5), lane = threadIdx.x & 31;
    if (head >= heads) return;
    float* own = shared[threadIdx.x >> 5];
    for (int i = lane; i < size; i += 32) own[i] = x[(u64)head * size + i];
    __syncwarp();
    spread(own, size);
    for (int i = lane; i < size; i += 32) x[(u64)head * size + i] = own[i];
}

// How many tokens of a text are one split's: few texts are long enough for all splits.
__device__ __forceinline__ int span_of(int length, int splits) { return max(32, ((length + splits - 1) / splits + 3) / 4 * 4); }

// The softmax so far of HEADS heads of q, by LANES lanes, of which each has EIGHTHS times eight values.
template <int HEADS, int EIGHTHS> struct Mix {
    float top[HEADS], sum[HEADS], values[HEADS][EIGHTHS][8];
};

// TOKENS scores of each head, and what is kept of these tokens' values.
template <int BITS, int HEADS, int EIGHTHS, int TOKENS>
__device__ __forceinline__ void mix_in(Mix<HEADS, EIGHTHS>& mix, float (&score)[HEADS][TOKENS], const Eighth<BITS> (&values)[TOKENS][EIGHTHS],
                                       const bool (&known)[TOKENS]) {
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
        float higher = mix.top[h];
        for (int t = 0; t < TOKENS; t++) higher = fmaxf(higher, known[t] ? score[h][t] : -1e30f);
        const float fade = expf(mix.top[h] - higher);
        mix.top[h] = higher, mix.sum[h] *= fade;
        for (int t = 0; t < TOKENS; t++) score[h][t] = known[t] ? expf(score[h][t] - higher) : 0, mix.sum[h] += score[h][t];
        for (int e = 0; e < EIGHTHS; e++)
            for (int i = 0; i < 8; i++) mix.values[h][e][i] *= fade;
    }
#pragma unroll
    for (int t = 0; t < TOKENS; t++)
        for (int e = 0; e < EIGHTHS; e++) {
            float x[8];
            values[t][e].values(x);
            for (int h = 0; h < HEADS; h++)
                for (int i = 0; i < 8; i++) mix.values[h][e][i] += score[h][t] * x[i];
        }
}

// The groups' results become one, in the place of the first one's values: by a warp for each head.
template <int HEADS, int GROUPS, int WIDTH>
__device__ __forceinline__ void join_groups(float (&top)[GROUPS][HEADS], float (&sum)[GROUPS][HEADS], float (&values)[GROUPS][HEADS][WIDTH],
                                            float* part, u64 stride, int size, bool spreads) {
    const int lane = threadIdx.x & 31;
    for (int h = threadIdx.x >> 5; h < HEADS; h += ATTEND_THREADS / 32) {
        const float own = lane < GROUPS ? top[lane][h] : -1e30f, higher = warp_max(own), fade = expf(own - higher);
        const float total = warp_sum(lane < GROUPS ? fade * sum[lane][h] : 0);
        if (lane < GROUPS) top[lane][h] = fade;
        __syncwarp();
        float* out = part + h * stride;
        if (lane == 0) out[0] = higher, out[1] = total;
        for (int i = lane; i < size; i += 32) {
            float value = 0;
            for (int g = 0; g < GROUPS; g++) value += values[g][h][i] * top[g][h];
            values[0][h][i] = value;
        }
        __syncwarp();
        if (spreads) spread(values[0][h], size);
        for (int i = lane; i < size; i += 32) out[2 + i] = values[0][h][i];
    }
}

// A part of a row's text against HEADS heads of q that share a kv head. LANES lanes take TOKENS tokens at a time; each of them has
// KEYS times eight values of a key and VALUES times eight of a value, which lie 8 LANES apart.
// Grid: (splits, groups of heads, listed rows). part: (listed rows, heads, splits, 2 + value) = maximum, sum, weighted values.
template <int BITS, int HEADS, int LANES, int KEYS, int VALUES, int TOKENS>
__device__ void attend_part(const float* q, float* part, const Heads& heads, const Pages& pages, const int* list, const int* count) {
    constexpr int GROUPS = ATTEND_THREADS / LANES;
    __shared__ float tops[GROUPS][HEADS], sums[GROUPS][HEADS];
    __shared__ __align__(16) float mixed[GROUPS][HEADS][VALUES * 8 * LANES];
    if (blockIdx.z >= *count) return;
    const int row = list ? list[blockIdx.z] : blockIdx.z, group = threadIdx.x / LANES, at = threadIdx.x % LANES * 8;
    const int first = blockIdx.y * HEADS, head = first / (heads.q / heads.kv), splits = gridDim.x;
    const int length = pages.positions[row] + 1, low = first_seen(heads, length), span = span_of(length - low, splits);
    const int begin = low + blockIdx.x * span, end = min(length, begin + span);
    if (begin >= length) return;
    const int* table = pages.tables + (u64)pages.sequences[row] * pages.width;
    float query[HEADS][KEYS][8];
    Mix<HEADS, VALUES> mix = {};
    for (int h = 0; h < HEADS; h++) {
        mix.top[h] = -1e30f;
        for (int e = 0; e < KEYS; e++) {
            load_values(q + ((u64)row * heads.q + first + h) * heads.key, at + e * 8 * LANES, heads.key, query[h][e]);
            for (int i = 0; i < 8; i++) query[h][e][i] *= heads.scale;
        }
    }
    for (int start = begin; start < end; start += GROUPS * TOKENS) {
        Eighth<BITS> keys[TOKENS][KEYS] = {}, values[TOKENS][VALUES] = {};
        bool known[TOKENS];
        float score[HEADS][TOKENS] = {};
#pragma unroll
        for (int t = 0; t < TOKENS; t++) {
            const int token = start + t * GROUPS + group, seen = min(token, end - 1), slot = seen % BLOCK_TOKENS;
            known[t] = token < end;
            const u8* block = pages.keys + place(heads, table, head, seen, BITS, heads.key);
            for (int e = 0; e < KEYS; e++)
                if (at + e * 8 * LANES < heads.key) keys[t][e].load(block, heads.key, slot, at + e * 8 * LANES);
            block = pages.values + place(heads, table, head, seen, BITS, heads.value);
            for (int e = 0; e < VALUES; e++)
                if (at + e * 8 * LANES < heads.value) values[t][e].load(block, heads.value, slot, at + e * 8 * LANES);
        }
#pragma unroll
        for (int t = 0; t < TOKENS; t++)
            for (int e = 0; e < KEYS; e++) {
                float x[8];
                keys[t][e].values(x);
                for (int h = 0; h < HEADS; h++)
                    for (int i = 0; i < 8; i++) score[h][t] += query[h][e][i] * x[i];
            }
#pragma unroll
        for (int h = 0; h < HEADS; h++)
            for (int t = 0; t < TOKENS; t++) {
                for (int step = LANES / 2; step; step >>= 1) score[h][t] += __shfl_xor_sync(FULL, score[h][t], step);
                if (heads.softcap) score[h][t] = heads.softcap * tanhf(score[h][t] / heads.softcap);
            }
        mix_in(mix, score, values, known);
    }
    for (int h = 0; h < HEADS; h++) {
        if (at == 0) tops[group][h] = mix.top[h], sums[group][h] = mix.sum[h];
        for (int e = 0; e < VALUES; e++) store_values(&mixed[group][h][at + e * 8 * LANES], mix.values[h][e]);
    }
    __syncthreads();
    const u64 stride = (u64)splits * (2 + heads.value);
    part += ((u64)blockIdx.z * heads.q + first) * stride + blockIdx.x * (2 + heads.value);
    join_groups(tops, sums, mixed, part, stride, heads.value, BITS != 16);
}

#define ATTEND(BITS, HEADS, LANES, KEYS, VALUES, TOKENS)                                                                       \
    extern "C" __global__ void __launch_bounds__(ATTEND_THREADS) attend_##BITS##_##HEADS##_##LANES##_##KEYS##_##VALUES(        \
        const float* q, float* part, Heads heads, Pages pages, const int* list, const int* count) {                           \
        after_previous();                                                                                                      \
        attend_part<BITS, HEADS, LANES, KEYS, VALUES, TOKENS>(q, part, heads, pages, list, count);                             \
    }

// The parts become one, (rows, heads * value). Grid: (chunks, listed rows); 256 threads, one for each value.
// `sinks`: a score for each head that has no value, or null.
extern "C" __global__ void attend_join(const float* part, float* out, Packing packing, Heads heads, Pages pages,
                                       int splits, const float* sinks, const int* list, const int* count) {
    after_previous();
    __shared__ float weights[CHUNK / 8 + 1][32];  // of the heads that the chunk has values of; splits <= 32: one a lane
    __shared__ __align__(16) float values[CHUNK];
    if (blockIdx.y >= *count) return;
    const int row = list ? list[blockIdx.y] : blockIdx.y, size = 2 + heads.value, lane = threadIdx.x & 31, warp = threadIdx.x / 32;
    const int length = pages.positions[row] + 1, seen = length - first_seen(heads, length);
    const int span = span_of(seen, splits), used = (seen + span - 1) / span;
    const int width = heads.q * heads.value, begin = blockIdx.x * CHUNK, end = min(width, begin + CHUNK), first = begin / heads.value;
    part += ((u64)blockIdx.y * heads.q + first) * splits * size;
    const int at = begin + threadIdx.x;
    const float* mixed = part + (at / heads.value - first) * splits * size + 2 + at % heads.value;
    float value = 0, parts[32];
#pragma unroll
    for (int s = 0; s < 32; s++) parts[s] = at < end && s < used ? mixed[s * size] : 0;  // on their way while the weights are made
    for (int head = warp; head <= (end - 1) / heads.value - first; head += 8) {
        const float* own = part + (head * splits + lane) * size;
        const float top = lane < used ? own[0] : -1e30f, sink = sinks ? sinks[first + head] : -1e30f;
        const float higher = fmaxf(warp_max(top), sink), weight = lane < used ? expf(top - higher) : 0;
        weights[head][lane] = weight / (warp_sum(lane < used ? weight * own[1] : 0) + (sinks ? expf(sink - higher) : 0));
    }
    __syncthreads();
    if (at < end) {
#pragma unroll
        for (int s = 0; s < 32; s++) value += parts[s] * weights[at / heads.value - first][s];
        out[(u64)row * width + at] = value;
    }
    if (!packing.out[Q8_K_ROWS] && !packing.out[Q8_0_ROWS]) return;
    values[threadIdx.x] = value;
    __syncthreads();
    if (warp) return;
    float v[8];
    load_values(values, 8 * lane, CHUNK, v);
    pack_values(v, packing, row, blockIdx.x, width);
}
