// Attention over the paged cache: keys and values (blocks, kv heads, 64, size) in f16; a row is one token of one sequence.

#define BLOCK_TOKENS 64
#define WIDEST_HEAD 640

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
    int width;
    u16 *keys, *values;
};

__device__ __forceinline__ u64 slot(const Pages& pages, const Heads& heads, const int* table, int head, int token) {
    return ((u64)table[token / BLOCK_TOKENS] * heads.kv + head) * BLOCK_TOKENS + token % BLOCK_TOKENS;
}

// A warp for each head of q, k and v of a row: norm (where there is a weight), turn, and store k and v; q stays where it is.
extern "C" __global__ void rotate_store(float* q, const float* k, const float* v, const float* q_norm, const float* k_norm, float eps,
                                        const float2* turns, int half, int interleaved, Heads heads, Pages pages, const int* rows) {
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
        const float scale = rsqrtf(warp_sum(total) / size + eps);
        for (int i = lane; i < size; i += 32) x[i] *= scale * norm[i];
    } else if (!is_q && !is_k && heads.value_eps) {
        const float scale = rsqrtf(warp_sum(total) / size + heads.value_eps);
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
    if (is_q) {
        for (int i = lane; i < size; i += 32) q[((u64)row * heads.q + own) * size + i] = x[i];
        return;
    }
    const int* table = pages.tables + (u64)pages.sequences[row] * pages.width;
    u16* to = (is_k ? pages.keys : pages.values) + slot(pages, heads, table, own, pages.positions[row]) * size;
    for (int i = lane; i < size; i += 32) to[i] = to_half(x[i]);
}

// How many tokens of a text are one split's: few texts are long enough for all splits.
__device__ __forceinline__ int span_of(int length, int splits) { return max(32, ((length + splits - 1) / splits + 3) / 4 * 4); }

// A part of a row's text against HEADS heads of q that share a kv head; PER values of a head are a lane's.
// Grid: (splits, groups of heads, listed rows). part: (listed rows, heads, splits, 2 + value) = maximum, sum, weighted values.
template <int HEADS, int PER>
__device__ void attend_part(const float* q, float* part, const Heads& heads, const Pages& pages, const int* list, const int* count) {
    __shared__ float best[4][HEADS], sums[4][HEADS], mixed[4][HEADS][32 * PER];
    if (blockIdx.z >= *count) return;
    const int row = list ? list[blockIdx.z] : blockIdx.z, lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const int first = blockIdx.y * HEADS, head = first / (heads.q / heads.kv), splits = gridDim.x;
    const int length = pages.positions[row] + 1, low = first_seen(heads, length), span = span_of(length - low, splits);
    if (low + blockIdx.x * span >= length) return;
    const int begin = low + blockIdx.x * span, end = min(length, begin + span);
    const int* table = pages.tables + (u64)pages.sequences[row] * pages.width;
    float query[HEADS][PER], mix[HEADS][PER], top[HEADS], sum[HEADS];
    for (int h = 0; h < HEADS; h++) {
        top[h] = -1e30f, sum[h] = 0;
        for (int i = 0; i < PER; i++) {
            const int at = lane * PER + i;
            query[h][i] = at < heads.key ? q[((u64)row * heads.q + first + h) * heads.key + at] * heads.scale : 0;
            mix[h][i] = 0;
        }
    }
    for (int token = begin + warp; token < end; token += 4) {
        const u64 where = slot(pages, heads, table, head, token);
        float key[PER], value[PER];
        for (int i = 0; i < PER; i++) {
            const int at = lane * PER + i;
            key[i] = at < heads.key ? half_bits(pages.keys[where * heads.key + at]) : 0;
            value[i] = at < heads.value ? half_bits(pages.values[where * heads.value + at]) : 0;
        }
        for (int h = 0; h < HEADS; h++) {
            float score = 0;
            for (int i = 0; i < PER; i++) score += query[h][i] * key[i];
            score = warp_sum(score);
            if (heads.softcap) score = heads.softcap * tanhf(score / heads.softcap);
            const float higher = fmaxf(top[h], score), fade = __expf(top[h] - higher), weight = __expf(score - higher);
            top[h] = higher, sum[h] = sum[h] * fade + weight;
            for (int i = 0; i < PER; i++) mix[h][i] = mix[h][i] * fade + weight * value[i];
        }
    }
    for (int h = 0; h < HEADS; h++) {
        if (lane == 0) best[warp][h] = top[h], sums[warp][h] = sum[h];
        for (int i = 0; i < PER; i++) mixed[warp][h][lane * PER + i] = mix[h][i];
    }
    __syncthreads();
    for (int h = warp; h < HEADS; h += 4) {  // the four warps' results become one
        float higher = -1e30f, total = 0;
        for (int w = 0; w < 4; w++) higher = fmaxf(higher, best[w][h]);
        float* out = part + (((u64)blockIdx.z * heads.q + first + h) * splits + blockIdx.x) * (2 + heads.value);
        for (int w = 0; w < 4; w++) total += sums[w][h] * __expf(best[w][h] - higher);
        if (lane == 0) out[0] = higher, out[1] = total;
        for (int at = lane; at < heads.value; at += 32) {
            float value = 0;
            for (int w = 0; w < 4; w++) value += mixed[w][h][at] * __expf(best[w][h] - higher);
            out[2 + at] = value;
        }
    }
}

#define ATTEND(HEADS, PER)                                                                                              \
    extern "C" __global__ void attend_##HEADS##_##PER(const float* q, float* part, Heads heads, Pages pages, const int* list, \
                                                      const int* count) {                                               \
        attend_part<HEADS, PER>(q, part, heads, pages, list, count);                                                    \
    }
ATTEND(1, 1) ATTEND(1, 2) ATTEND(1, 3) ATTEND(1, 4) ATTEND(1, 6) ATTEND(1, 8) ATTEND(1, 16) ATTEND(1, 18)
ATTEND(2, 1) ATTEND(2, 2) ATTEND(2, 3) ATTEND(2, 4) ATTEND(2, 6) ATTEND(2, 8) ATTEND(2, 16) ATTEND(2, 18)
ATTEND(4, 1) ATTEND(4, 2) ATTEND(4, 3) ATTEND(4, 4) ATTEND(4, 6) ATTEND(4, 8) ATTEND(4, 16) ATTEND(4, 18)

// The parts become one, (rows, heads * value). Grid: (chunks, listed rows); 256 threads, one for each value.
// `sinks`: a score for each head that has no value, or null.
extern "C" __global__ void attend_join(const float* part, float* out, Packing packing, Heads heads, Pages pages,
                                       int splits, const float* sinks, const int* list, const int* count) {
    __shared__ float weights[CHUNK / 8 + 1][32];  // of the heads that the chunk has values of; splits <= 32: one a lane
    __shared__ __align__(16) float values[CHUNK];
    if (blockIdx.y >= *count) return;
    const int row = list ? list[blockIdx.y] : blockIdx.y, size = 2 + heads.value, lane = threadIdx.x & 31, warp = threadIdx.x / 32;
    const int length = pages.positions[row] + 1, seen = length - first_seen(heads, length);
    const int span = span_of(seen, splits), used = (seen + span - 1) / span;
    const int width = heads.q * heads.value, begin = blockIdx.x * CHUNK, end = min(width, begin + CHUNK), first = begin / heads.value;
    part += ((u64)blockIdx.y * heads.q + first) * splits * size;
    for (int head = warp; head <= (end - 1) / heads.value - first; head += 8) {
        const float* own = part + (head * splits + lane) * size;
        const float top = lane < used ? own[0] : -1e30f, sink = sinks ? sinks[first + head] : -1e30f;
        const float higher = fmaxf(warp_max(top), sink), weight = lane < used ? __expf(top - higher) : 0;
        weights[head][lane] = weight / (warp_sum(lane < used ? weight * own[1] : 0) + (sinks ? __expf(sink - higher) : 0));
    }
    __syncthreads();
    const int at = begin + threadIdx.x, head = at / heads.value - first;
    const float* own = part + head * splits * size + 2 + at % heads.value;
    float value = 0;
    if (at < end) {
#pragma unroll 8
        for (int s = 0; s < used; s++) value += own[s * size] * weights[head][s];
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
