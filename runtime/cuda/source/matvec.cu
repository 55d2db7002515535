// Products with quantised matrices, for up to sixteen rows of x: weights are read once, unpacked in registers and multiplied in
// int8 where their type has integers, else in float32.

struct Matrix {
    const u8* w;
    const float* bias;  // or null
    float* out;         // (rows of x, rows of w)
    u64 row_bytes;
    int rows, type;
};

struct Matrices {
    Matrix m[4];
};

// R rows of w against N rows of x, this lane's share of the sums: of every 256 values of part `part` of `parts`, 8.
template <class Q, int R, int N>
__device__ __forceinline__ void dot_floats(const u8* const (&w)[R], const Rows& x, float (&sums)[R][N], int part, int parts) {
#pragma unroll 2
    for (int i = 8 * (threadIdx.x & 31) + 256 * part; i < x.width; i += 256 * parts) {
        const int block = i / Q::BLOCK * Q::BYTES, eighth = i % Q::BLOCK / 8;
        float a[R][8];
#pragma unroll
        for (int r = 0; r < R; r++) Q::unpack8(w[r] + block, eighth, a[r]);
#pragma unroll
        for (int n = 0; n < N; n++) {
            const float4* p = reinterpret_cast<const float4*>(x.x + (u64)n * x.width + i);
            const float4 u = p[0], v = p[1];
#pragma unroll
            for (int r = 0; r < R; r++)
                sums[r][n] += a[r][0] * u.x + a[r][1] * u.y + a[r][2] * u.z + a[r][3] * u.w + a[r][4] * v.x + a[r][5] * v.y +
                              a[r][6] * v.z + a[r][7] * v.w;
        }
    }
}

// 32 values of w times those of x: two runs of 16, the sums of x's in the halves of `totals`.
template <class Q> __device__ __forceinline__ float product(const Ints& w, const u32* x, float d, u32 totals) {
    int first = 0, second = 0;
#pragma unroll
    for (int i = 0; i < 4; i++) first = __dp4a((int)w.q[i], (int)x[i], first), second = __dp4a((int)w.q[4 + i], (int)x[4 + i], second);
    const bool scaled = Q::FORM == SCALED;
    if (scaled) first *= (signed char)w.scales, second *= (signed char)(w.scales >> 8);
    float value = w.d * (float)(first + second);
    if (Q::FORM != PLAIN) value += w.least * (float)__dp2a_lo((int)totals, (int)(scaled ? w.minimums : 0x0101), 0);
    return value * d;
}

// The same in int8: of every 1024 values 32, so that what a block has of scales is unpacked for many values at once.
template <class Q, int R, int N>
__device__ __forceinline__ void dot_ints(const u8* const (&w)[R], const Rows& x, float (&sums)[R][N], int part, int parts) {
    const int lane = threadIdx.x & 31, each = Q::BLOCK / 32, runs = Q::STEP / 16, p = lane % each;
    const int first = p / runs * 2 * Q::STEP + p % runs * 16;  // of the block's values
#pragma unroll 1
    for (int unit = lane + 32 * part; unit < x.width / 32; unit += 32 * parts) {
        const int block = unit / each, at = block * Q::BLOCK + first, place = at % CHUNK;
        Ints a[R];
#pragma unroll
        for (int r = 0; r < R; r++) Q::ints(w[r] + block * Q::BYTES, p, a[r]);
#pragma unroll
        for (int n = 0; n < N; n++) {
            const u8* chunk = x.packed[Q::FORMAT] + n * packed_bytes(x.width) + at / CHUNK * CHUNK_BYTES;
            const uint4 u = fresh16(chunk + place), v = fresh16(chunk + place + Q::STEP);
            const u32 values[8] = {u.x, u.y, u.z, u.w, v.x, v.y, v.z, v.w};
            const float d = *reinterpret_cast<const float*>(chunk + CHUNK_SCALES + place / 32 * 4);
            const u8* totals = chunk + CHUNK_SUMS + place / 16 * 2;
            const u32 both = Q::FORM == PLAIN ? 0 : short_at(totals) | short_at(totals + Q::STEP / 8) << 16;
#pragma unroll
            for (int r = 0; r < R; r++) sums[r][n] += product<Q>(a[r], values, d, both);
        }
    }
}

template <class Q, int R, int N>
__device__ __forceinline__ void dot(const u8* const (&w)[R], const Rows& x, float (&sums)[R][N], int part = 0, int parts = 1) {
    if constexpr (Q::INTS) dot_ints<Q>(w, x, sums, part, parts);
    else dot_floats<Q>(w, x, sums, part, parts);
}

// Rows of w of one task: x is loaded once for all of them. More rows of x leave fewer registers.
__device__ constexpr int together(int n) { return n < 8 ? 4 : 2; }

// 1 << shift warps share a task, so that small matrices keep the whole card busy too. Grid: (tasks, rows of x / N); 256 threads.
template <int N> __device__ void matvec(const Matrices& all, int count, const Rows& x, int shift, const int* rows) {
    constexpr int TOGETHER = together(N);
    __shared__ float shared[8][TOGETHER * N];
    const int warp = threadIdx.x / 32, lane = threadIdx.x & 31, parts = 1 << shift, part = warp & parts - 1;
    const int column = N * blockIdx.y;
    int task = (blockIdx.x * 8 + warp) >> shift, i = 0;
    if (column >= *rows) return;
    while (i < count && task >= (all.m[i].rows + TOGETHER - 1) / TOGETHER) task -= (all.m[i].rows + TOGETHER - 1) / TOGETHER, i++;
    const Matrix& m = all.m[min(i, count - 1)];
    if (i < count) {
        const u8* w[TOGETHER];
        for (int r = 0; r < TOGETHER; r++) w[r] = m.w + min(TOGETHER * task + r, m.rows - 1) * m.row_bytes;
        float sums[TOGETHER][N] = {};
        with_type(m.type, [&](auto q) { dot<decltype(q)>(w, from_row(x, column), sums, part, parts); });
        for (int r = 0; r < TOGETHER; r++)
            for (int n = 0; n < N; n++) {
                const float sum = warp_sum(sums[r][n]);
                if (lane == 0) shared[warp][r * N + n] = sum;
            }
    }
    __syncthreads();
    if (i == count || part) return;
    for (int at = lane; at < TOGETHER * N; at += 32) {
        const int row = TOGETHER * task + at / N, n = column + at % N;
        float sum = m.bias && row < m.rows ? m.bias[row] : 0;
        for (int other = 0; other < parts; other++) sum += shared[warp + other][at];
        if (n < *rows && row < m.rows) m.out[(u64)n * m.rows + row] = sum;
    }
}

#define MATVEC(N)                                                                                                              \
    extern "C" __global__ void __launch_bounds__(256, N == 1 ? 3 : 2) matvec_##N(Matrices all, int count, Rows x, int shift, const int* rows) { \
        after_previous();                                                                                                      \
        matvec<N>(all, count, x, shift, rows);                                                                                 \
    }
MATVEC(1) MATVEC(2) MATVEC(4) MATVEC(8)

// Rows of a table: out[row] = table[index[row]].
extern "C" __global__ void embed(const u8* table, u64 row_bytes, int type, const int* index, float* out, int width, const int* rows) {
    after_previous();
    const int row = blockIdx.x;
    if (row >= *rows) return;
    const u8* w = table + index[row] * row_bytes;
    with_type(type, [&](auto q) {
        typedef decltype(q) Q;
        for (int i = 8 * threadIdx.x; i < width; i += 8 * blockDim.x) {
            float value[8];
            Q::unpack8(w + i / Q::BLOCK * Q::BYTES, i % Q::BLOCK / 8, value);
            for (int k = 0; k < 8; k++) out[(u64)row * width + i + k] = value[k];
        }
    });
}

// Values of a matrix in f16, (n / 8) * 8 of them.
extern "C" __global__ void dequantize(const u8* w, int type, u16* out, u64 n) {
    after_previous();
    const u64 i = 8 * ((u64)blockIdx.x * blockDim.x + threadIdx.x);
    if (i >= n) return;
    with_type(type, [&](auto q) {
        typedef decltype(q) Q;
        float value[8];
        Q::unpack8(w + i / Q::BLOCK * Q::BYTES, i % Q::BLOCK / 8, value);
        for (int k = 0; k < 8; k++) out[i + k] = to_half(value[k]);
    });
}
