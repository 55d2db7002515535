// The same products in int8, for types that have integers: with the rows of x that packed.cu makes, so that a prompt's products are
// those of single rows and of the CPU. Tiles of w are unpacked to int8 in shared memory, tensor cores multiply.

#define SLAB 128             // values of a row that are multiplied between two barriers: half a CHUNK
#define SLAB_ROW (SLAB + 16)  // bytes: no two of eight rows begin in the same banks
#define SUM_BITS 0x4b400000  // 12582912.0f: its low bits take a sum of up to 2 ** 22 either way, and it is a float at once
#define SUM_ZERO 12582912.0f

struct IntTiles {
    __align__(16) u8 a[BM][SLAB_ROW], b[BN][SLAB_ROW];
    float a_scale[SLAB / 16][BM], a_least[SLAB / 16][BM];  // what makes values of 16 or 32 integers of w: scale * q + least
    float b_scale[SLAB / 32][BN], b_sum[SLAB / 16][BN];    // of x: of 32, and the sum of 16 or 32 values
    int pairs[BN], from[BN];  // -1: none; rows of x
};

// c += a b for 16 rows of w, 16 values, 8 rows of x.
__device__ __forceinline__ void mma_ints(int* c, const u32* a, u32 b) {
#if __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(b));
#else
    for (int half = 0; half < 2; half++)
        asm("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0,%1}, {%2}, {%3}, {%0,%1};"
            : "+r"(c[2 * half]), "+r"(c[2 * half + 1]) : "r"(a[half]), "r"(b));
#endif
}

// The same for 32 values.
__device__ __forceinline__ void mma_ints_wide(int* c, const u32* a, const u32* b) {
#if __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    mma_ints(c, a, b[0]), mma_ints(c, a + 2, b[1]);
#endif
}

// Values [k0, k0 + SLAB) of BM rows of w, of which there are `rows`; zeros beyond them.
template <class Q> __device__ __forceinline__ void load_weights(IntTiles& tiles, const u8* w, u64 row_bytes, int rows, int k0, int width) {
    constexpr int EACH = Q::BLOCK / 32, RUNS = Q::STEP / 16;
    for (int i = threadIdx.x; i < BM * SLAB / 32; i += 256) {
        const int row = i / (SLAB / 32), unit = k0 / 32 + i % (SLAB / 32), block = unit / EACH, p = unit % EACH;
        const int at = (block * Q::BLOCK + p / RUNS * 2 * Q::STEP + p % RUNS * 16) % SLAB;
        Ints o = {};
        if (row < rows && unit * 32 < width) Q::ints(w + row * row_bytes + block * Q::BYTES, p, o);
        *reinterpret_cast<uint4*>(&tiles.a[row][at]) = {o.q[0], o.q[1], o.q[2], o.q[3]};
        *reinterpret_cast<uint4*>(&tiles.a[row][at + Q::STEP]) = {o.q[4], o.q[5], o.q[6], o.q[7]};
#pragma unroll
        for (int run = 0; run < 2; run++) {
            const int group = (at + run * Q::STEP) / Q::SCALES;
            tiles.a_scale[group][row] = Q::FORM == SCALED ? o.d * (signed char)(o.scales >> 8 * run) : o.d;
            if (Q::FORM != PLAIN)
                tiles.a_least[group][row] = Q::FORM == SCALED ? o.least * (signed char)(o.minimums >> 8 * run) : o.least;
        }
    }
}

// The same values of the tile's rows of x; `x`: from k0's chunk on.
template <class Q> __device__ __forceinline__ void load_rows(IntTiles& tiles, const u8* x, int row_bytes, int half) {
    for (int i = threadIdx.x; i < BN * SLAB / 16; i += 256) {
        const int column = i / (SLAB / 16), place = i % (SLAB / 16) * 16, row = tiles.from[column];
        uint4 value = {0, 0, 0, 0};
        if (row >= 0) value = fresh16(x + (u64)row * row_bytes + half * SLAB + place);
        *reinterpret_cast<uint4*>(&tiles.b[column][place]) = value;
    }
    for (int i = threadIdx.x; i < BN * SLAB / 32; i += 256) {
        const int column = i % BN, group = i / BN, row = tiles.from[column], at = half * SLAB / 32 + group;
        const u8* chunk = x + (u64)max(row, 0) * row_bytes;
        const float d = row < 0 ? 0 : reinterpret_cast<const float*>(chunk + CHUNK_SCALES)[at];
        tiles.b_scale[group][column] = d;
        if (Q::FORM == PLAIN) continue;
        const short first = reinterpret_cast<const short*>(chunk + CHUNK_SUMS)[2 * at];
        const short second = reinterpret_cast<const short*>(chunk + CHUNK_SUMS)[2 * at + 1];
        if (Q::SCALES == 32) tiles.b_sum[group][column] = d * (first + second);
        else tiles.b_sum[2 * group][column] = d * first, tiles.b_sum[2 * group + 1][column] = d * second;
    }
}

// What a slab adds to a warp's 32 x 32 products.
template <class Q> __device__ __forceinline__ void multiply(const IntTiles& tiles, int wm, int wn, float (&out)[2][4][4]) {
    constexpr int PARTS = 32 / Q::SCALES;
    const int lane = threadIdx.x & 31, row = wm + (lane >> 2), column = wn + 2 * (lane & 3);
#pragma unroll 1
    for (int group = 0; group < SLAB / 32; group++) {
        u32 a[2][4], b[2][4];
        for (int i = 0; i < 2; i++)
            ldmatrix(a[i], reinterpret_cast<const u16*>(&tiles.a[wm + 16 * i + (lane & 15)][32 * group + (lane >> 4) * 16]));
        for (int j = 0; j < 2; j++)
            ldmatrix(b[j], reinterpret_cast<const u16*>(&tiles.b[wn + 16 * j + (lane >> 4) * 8 + (lane & 7)][32 * group + (lane >> 3 & 1) * 16]));
#pragma unroll
        for (int part = 0; part < PARTS; part++) {
            const int own = group * PARTS + part;
            float a_scale[4], a_least[4];
            for (int r = 0; r < 4; r++) {
                a_scale[r] = tiles.a_scale[own][row + 8 * r];
                a_least[r] = Q::FORM == PLAIN ? 0 : tiles.a_least[own][row + 8 * r];
            }
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const float2 b_scale = *reinterpret_cast<const float2*>(&tiles.b_scale[group][column + 8 * j]);
                const float2 b_sum = *reinterpret_cast<const float2*>(&tiles.b_sum[Q::FORM == PLAIN ? 0 : own][column + 8 * j]);
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    int c[4] = {SUM_BITS, SUM_BITS, SUM_BITS, SUM_BITS};
                    if (PARTS == 1) mma_ints_wide(c, a[i], &b[j >> 1][2 * (j & 1)]);
                    else mma_ints(c, a[i] + 2 * part, b[j >> 1][2 * (j & 1) + part]);
#pragma unroll
                    for (int e = 0; e < 4; e++) {
                        const int r = 2 * i + (e >> 1);
                        out[i][j][e] += (__int_as_float(c[e]) - SUM_ZERO) * (a_scale[r] * (e & 1 ? b_scale.y : b_scale.x));
                        if (Q::FORM != PLAIN) out[i][j][e] += a_least[r] * (e & 1 ? b_sum.y : b_sum.x);
                    }
                }
            }
        }
    }
}

// As `matmul`, and of the same grid.
extern "C" __global__ void __launch_bounds__(256, 2) matmul_ints(Matrix m, const u64* experts, Groups groups, Rows x, const int* rows) {
    after_previous();
    __shared__ IntTiles tiles;
    int first = blockIdx.y * BN, count = min(BN, *rows - first);
    const u8* w = m.w;
    const float* bias = m.bias;
    if (groups.tiles) {
        if ((int)blockIdx.y >= *groups.n_tiles) return;
        const int4 tile = groups.tiles[blockIdx.y];
        first = tile.y, count = tile.z, w = reinterpret_cast<const u8*>(experts[tile.x]);
        if (bias) bias += (u64)tile.x * m.rows;
    }
    if (count <= 0) return;
    const int row0 = blockIdx.x * BM, warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
    const int wm = (warp >> 1) * 32, wn = (warp & 1) * 32, row_bytes = packed_bytes(x.width);
    for (int i = threadIdx.x; i < BN; i += 256) {
        const int pair = i >= count ? -1 : groups.tiles ? groups.order[first + i] : first + i;
        tiles.pairs[i] = pair, tiles.from[i] = pair < 0 ? -1 : pair / groups.share;
    }
    w += row0 * m.row_bytes;
    float c[2][4][4] = {};
    __syncthreads();
    with_type(m.type, [&](auto q) {
        typedef decltype(q) Q;
        if constexpr (Q::INTS) {
            for (int k0 = 0; k0 < x.width; k0 += SLAB) {
                load_weights<Q>(tiles, w, m.row_bytes, m.rows - row0, k0, x.width);
                load_rows<Q>(tiles, x.packed[Q::FORMAT] + k0 / CHUNK * CHUNK_BYTES, row_bytes, k0 / SLAB % 2);
                __syncthreads();
                multiply<Q>(tiles, wm, wn, c);
                __syncthreads();
            }
        }
    });
    for (int j = 0; j < 4; j++)
        for (int half = 0; half < 2; half++) {
            const int pair = tiles.pairs[wn + 8 * j + 2 * (lane & 3) + half];
            if (pair < 0) continue;
            for (int i = 0; i < 2; i++)
                for (int lower = 0; lower < 2; lower++) {
                    const int row = row0 + wm + 16 * i + 8 * lower + (lane >> 2);
                    if (row < m.rows) m.out[(u64)pair * m.rows + row] = c[i][j][2 * lower + half] + (bias ? bias[row] : 0);
                }
        }
}
