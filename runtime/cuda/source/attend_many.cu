// Attention of many rows of one text, on tensor cores: as exact as that of single rows, because queries and weights are multiplied as
// the sums of two f16. Reads the cache's blocks as they are, so windows, sinks and long texts cost what they see.

#define MANY 64          // columns of a block: (row, head) pairs that share a kv head, 16 of each warp
#define MANY_THREADS 128

// Four 8 x 8 matrices of f16 from shared memory, each transposed.
__device__ __forceinline__ void ldmatrix_turned(u32* r, const u16* p) {
    u32 address = (u32)__cvta_generic_to_shared(p);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address) : "memory");
}

// Two floats as f16, and what that leaves of them.
__device__ __forceinline__ void split(float low, float high, u32& most, u32& rest) {
    most = to_halves(low, high);
    rest = to_halves(low - half_bits(most & 0xffff), high - half_bits(most >> 16));
}

// A block's rows of keys or values, of `size` values, to f16; zeros up to WIDTH.
template <int BITS, int WIDTH> __device__ __forceinline__ void load_block(u16 (*tile)[WIDTH + PAD], const u8* block, int size) {
#pragma unroll 4
    for (int i = threadIdx.x; i < BLOCK_TOKENS * WIDTH / 8; i += MANY_THREADS) {
        const int slot = i / (WIDTH / 8), at = i % (WIDTH / 8) * 8;
        uint4 packed = {0, 0, 0, 0};
        if (at < size) {
            Eighth<BITS> kept;
            kept.load(block, size, slot, at);
            if constexpr (BITS == 16) {
                packed = {kept.q[0], kept.q[1], kept.q[2], kept.q[3]};
            } else {
                float x[8];
                kept.values(x);
                packed = {to_halves(x[0], x[1]), to_halves(x[2], x[3]), to_halves(x[4], x[5]), to_halves(x[6], x[7])};
            }
        }
        *reinterpret_cast<uint4*>(&tile[slot][at]) = packed;
    }
}

// Scores of a warp's 16 columns against a block's tokens; `from`: this lane's two columns in q.
template <int KEYS> __device__ __forceinline__ void score_block(float (&score)[8][4], const u16 (*tile)[16 * KEYS + PAD], const float* const (&from)[2], int size) {
    const int lane = threadIdx.x & 31;
#pragma unroll
    for (int k = 0; k < KEYS; k++) {
        u32 most[4], rest[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int at = 16 * k + 2 * (lane & 3) + 8 * (i >> 1);
            const float2 q = at < size ? *reinterpret_cast<const float2*>(from[i & 1] + at) : make_float2(0, 0);
            split(q.x, q.y, most[i], rest[i]);
        }
#pragma unroll
        for (int j = 0; j < 4; j++) {
            u32 b[4];
            ldmatrix(b, &tile[16 * j + (lane >> 4) * 8 + (lane & 7)][16 * k + (lane >> 3 & 1) * 8]);
            mma(score[2 * j], rest, b), mma(score[2 * j], most, b);
            mma(score[2 * j + 1], rest, b + 2), mma(score[2 * j + 1], most, b + 2);
        }
    }
}

// The rows of a text's `length` tokens that are its last `rows`. Grid: (columns / MANY, kv heads). `blocks`: the text's.
template <int BITS, int KEYS, int VALUES>
__device__ void attend_many(const float* q, float* out, const Heads& heads, const u8* keys, const u8* values, const int* blocks, int rows,
                            int length, const float* sinks) {
    constexpr int WIDTH = 16 * (KEYS > VALUES ? KEYS : VALUES);
    __shared__ __align__(16) u16 shared[BLOCK_TOKENS * (WIDTH + PAD)];
    u16(*const key_tile)[16 * KEYS + PAD] = reinterpret_cast<u16(*)[16 * KEYS + PAD]>(shared);
    u16(*const value_tile)[16 * VALUES + PAD] = reinterpret_cast<u16(*)[16 * VALUES + PAD]>(shared);
    const int lane = threadIdx.x & 31, group = heads.q / heads.kv, last_column = rows * group - 1;
    const int begin = (gridDim.x - 1 - blockIdx.x) * MANY, own = begin + (threadIdx.x >> 5) * 16 + (lane >> 2);  // the longest first
    const float* from[2];
    int place[2], position[2], low[2];
    for (int half = 0; half < 2; half++) {
        const int column = min(own + 8 * half, last_column), row = column / group;
        place[half] = row * heads.q + blockIdx.y * group + column % group;
        position[half] = length - rows + row, low[half] = first_seen(heads, position[half] + 1);
        from[half] = q + (u64)place[half] * heads.key;
    }
    float sums[VALUES][2][4] = {}, top[2] = {-1e30f, -1e30f}, total[2] = {};
    const int end = length - rows + min(begin + MANY - 1, last_column) / group + 1;
    const int start = first_seen(heads, length - rows + begin / group + 1) / BLOCK_TOKENS;
    for (int n = start; n * BLOCK_TOKENS < end; n++) {
        const u64 block = (u64)blocks[n] * heads.kv + blockIdx.y;
        float score[8][4] = {};
        load_block<BITS, 16 * KEYS>(key_tile, keys + block * head_bytes(BITS, heads.key), heads.key);
        __syncthreads();
        score_block<KEYS>(score, key_tile, from, heads.key);
        __syncthreads();
        load_block<BITS, 16 * VALUES>(value_tile, values + block * head_bytes(BITS, heads.value), heads.value);
        const int token = n * BLOCK_TOKENS + 2 * (lane & 3);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float higher = top[half], added = 0;
#pragma unroll
            for (int i = 0; i < 16; i++) {
                float& s = score[i >> 1][2 * half + (i & 1)];
                const int at = token + 8 * (i >> 1) + (i & 1);
                s *= heads.scale;
                if (heads.softcap) s = heads.softcap * tanhf(s / heads.softcap);
                if (at > position[half] || at < low[half]) s = -3e38f;
                higher = fmaxf(higher, s);
            }
            for (int step = 1; step < 4; step *= 2) higher = fmaxf(higher, __shfl_xor_sync(FULL, higher, step));
            const float fade = expf(top[half] - higher);
#pragma unroll
            for (int i = 0; i < 16; i++) {
                float& s = score[i >> 1][2 * half + (i & 1)];
                s = s > -2e38f ? expf(s - higher) : 0, added += s;
            }
            for (int step = 1; step < 4; step *= 2) added += __shfl_xor_sync(FULL, added, step);
            top[half] = higher, total[half] = total[half] * fade + added;
#pragma unroll
            for (int v = 0; v < VALUES; v++)
                for (int i = 0; i < 4; i++) sums[v][i >> 1][2 * half + (i & 1)] *= fade;
        }
        __syncthreads();
#pragma unroll
        for (int k = 0; k < 4; k++) {
            u32 most[4], rest[4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float* pair = &score[2 * k + (i >> 1)][2 * (i & 1)];
                split(pair[0], pair[1], most[i], rest[i]);
            }
#pragma unroll
            for (int v = 0; v < VALUES; v++) {
                u32 b[4];
                ldmatrix_turned(b, &value_tile[16 * k + (lane & 15)][16 * v + (lane >> 4) * 8]);
                mma(sums[v][0], rest, b), mma(sums[v][0], most, b);
                mma(sums[v][1], rest, b + 2), mma(sums[v][1], most, b + 2);
            }
        }
        __syncthreads();
    }
    for (int half = 0; half < 2; half++) {
        if (own + 8 * half > last_column) continue;
        const float sink = sinks ? sinks[place[half] % heads.q] : -1e30f, higher = fmaxf(top[half], sink), fade = expf(top[half] - higher);
        const float share = fade / (total[half] * fade + (sinks ? expf(sink - higher) : 0));
        float* to = out + (u64)place[half] * heads.value;
        for (int v = 0; v < VALUES; v++)
            for (int i = 0; i < 2; i++) {
                const int at = 16 * v + 8 * i + 2 * (lane & 3);
                if (at < heads.value) to[at] = sums[v][i][2 * half] * share, to[at + 1] = sums[v][i][2 * half + 1] * share;
            }
    }
}

#define ATTEND_MANY(BITS, KEYS, VALUES)                                                                                        \
    extern "C" __global__ void __launch_bounds__(MANY_THREADS, VALUES <= 8 ? 3 : 2) attend_many_##BITS##_##KEYS##_##VALUES(     \
        const float* q, float* out, Heads heads, const u8* keys, const u8* values, const int* blocks, int rows, int length,    \
        const float* sinks) {                                                                                                   \
        after_previous();                                                                                                       \
        attend_many<BITS, KEYS, VALUES>(q, out, heads, keys, values, blocks, rows, length, sinks);                              \
    }
