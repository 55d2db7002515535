// Products with quantised matrices, for one to eight rows of x: weights are read once and unpacked in registers.

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

// R rows of w against N rows of x, this lane's share of the sums: 8 values of every 256 of part `part` of `parts`.
template <class Q, int R, int N>
__device__ __forceinline__ void dot(const u8* const (&w)[R], const float* x, int width, float (&sums)[R][N], int part = 0, int parts = 1) {
#pragma unroll 2
    for (int i = 8 * (threadIdx.x & 31) + 256 * part; i < width; i += 256 * parts) {
        const int block = i / Q::BLOCK * Q::BYTES, eighth = i % Q::BLOCK / 8;
        float a[R][8];
#pragma unroll
        for (int r = 0; r < R; r++) Q::unpack8(w[r] + block, eighth, a[r]);
#pragma unroll
        for (int n = 0; n < N; n++) {
            const float4* p = reinterpret_cast<const float4*>(x + (u64)n * width + i);
            const float4 u = p[0], v = p[1];
#pragma unroll
            for (int r = 0; r < R; r++)
                sums[r][n] += a[r][0] * u.x + a[r][1] * u.y + a[r][2] * u.z + a[r][3] * u.w + a[r][4] * v.x + a[r][5] * v.y +
                              a[r][6] * v.z + a[r][7] * v.w;
        }
    }
}

#define TOGETHER 4  // rows of w of one task: x is loaded once for all of them

// `parts` warps share a task, so that small matrices keep the whole card busy too; 256 threads.
template <int N> __device__ void matvec(const Matrices& all, int count, const float* x, int width, int parts, const int* rows) {
    __shared__ float shared[8][TOGETHER * N];
    const int warp = threadIdx.x / 32, lane = threadIdx.x & 31;
    int task = (blockIdx.x * 8 + warp) / parts, i = 0;
    while (i < count && task >= (all.m[i].rows + TOGETHER - 1) / TOGETHER) task -= (all.m[i].rows + TOGETHER - 1) / TOGETHER, i++;
    const Matrix& m = all.m[min(i, count - 1)];
    if (i < count) {
        const u8* w[TOGETHER];
        for (int r = 0; r < TOGETHER; r++) w[r] = m.w + min(TOGETHER * task + r, m.rows - 1) * m.row_bytes;
        float sums[TOGETHER][N] = {};
        with_type(m.type, [&](auto q) { dot<decltype(q)>(w, x, width, sums, warp % parts, parts); });
        for (int r = 0; r < TOGETHER; r++)
            for (int n = 0; n < N; n++) {
                const float sum = warp_sum(sums[r][n]);
                if (lane == 0) shared[warp][r * N + n] = sum;
            }
    }
    __syncthreads();
    if (i == count || warp % parts) return;
    for (int at = lane; at < TOGETHER * N; at += 32) {
        const int row = TOGETHER * task + at / N, n = at % N;
        float sum = m.bias && row < m.rows ? m.bias[row] : 0;
        for (int part = 0; part < parts; part++) sum += shared[warp + part][at];
        if (n < *rows && row < m.rows) m.out[(u64)n * m.rows + row] = sum;
    }
}

#define MATVEC(N)                                                                                                              \
    extern "C" __global__ void __launch_bounds__(256) matvec_##N(Matrices all, int count, const float* x, int width, int parts, const int* rows) { \
        matvec<N>(all, count, x, width, parts, rows);                                                                                 \
    }
MATVEC(1) MATVEC(2) MATVEC(4) MATVEC(8)

// Rows of a table: out[row] = table[index[row]].
extern "C" __global__ void embed(const u8* table, u64 row_bytes, int type, const int* index, float* out, int width, const int* rows) {
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
    const u64 i = 8 * ((u64)blockIdx.x * blockDim.x + threadIdx.x);
    if (i >= n) return;
    with_type(type, [&](auto q) {
        typedef decltype(q) Q;
        float value[8];
        Q::unpack8(w + i / Q::BLOCK * Q::BYTES, i % Q::BLOCK / 8, value);
        for (int k = 0; k < 8; k++) out[i + k] = to_half(value[k]);
    });
}
