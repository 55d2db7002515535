// Products with quantised matrices for many rows of x: tiles of w are unpacked to f16 in shared memory, tensor cores multiply.

#define BM 128  // rows of w
#define BN 64   // rows of x
#define BK 64
#define PAD 8

struct Groups {
    const int4* tiles;   // expert, first place in `order`, places; null: one matrix, and rows of x in order
    const int* n_tiles;
    const int* order;    // pairs sorted by expert
    int share;           // pairs of one row of x: 1 where x has a row for each pair
};

__device__ __forceinline__ void mma(float* c, const u32* a, const u32* b) {
#if __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    for (int k = 0; k < 2; k++)
        asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[2 * k]), "r"(a[2 * k + 1]), "r"(b[k]));
#endif
}

// Four 8 x 8 matrices of f16 from shared memory; lane l gives the address of row l % 8 of matrix l / 8.
__device__ __forceinline__ void ldmatrix(u32* r, const u16* p) {
    u32 address = (u32)__cvta_generic_to_shared(p);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address) : "memory");
}

template <class Q> __device__ __forceinline__ void unpack_tile(u16 (*tile)[BK + PAD], const u8* w, u64 row_bytes, int rows, int k0, int width) {
    for (int t = threadIdx.x; t < BM * BK / 8; t += 256) {
        const int row = t / (BK / 8), k = k0 + t % (BK / 8) * 8;
        float value[8] = {};
        if (row < rows && k < width) Q::unpack8(w + row * row_bytes + k / Q::BLOCK * Q::BYTES, k % Q::BLOCK / 8, value);
        uint4 packed = {to_halves(value[0], value[1]), to_halves(value[2], value[3]), to_halves(value[4], value[5]), to_halves(value[6], value[7])};
        *reinterpret_cast<uint4*>(&tile[row][k - k0]) = packed;
    }
}

// out[pair][row] = w[row] . x[pair / share] * scale. Grid: (tiles of w's rows, tiles of pairs); 256 threads.
extern "C" __global__ void __launch_bounds__(256, 2) matmul(Matrix m, const u64* experts, Groups groups, const u16* x, const float* scale, int width, const int* rows) {
    after_previous();
    __shared__ __align__(16) u16 a_tile[BM][BK + PAD], b_tile[BN][BK + PAD];
    __shared__ int pairs[BN];
    int first = blockIdx.y * BN, count = min(BN, *rows - first);
    const u8* w = m.w;
    const float* bias = m.bias;
    if (groups.tiles) {
        if (blockIdx.y >= *groups.n_tiles) return;
        const int4 tile = groups.tiles[blockIdx.y];
        first = tile.y, count = tile.z, w = reinterpret_cast<const u8*>(experts[tile.x]);
        if (bias) bias += (u64)tile.x * m.rows;
    }
    if (count <= 0) return;
    const int row0 = blockIdx.x * BM, warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
    const int wm = (warp >> 1) * 32, wn = (warp & 1) * 32;
    for (int i = threadIdx.x; i < BN; i += 256) pairs[i] = i >= count ? -1 : groups.tiles ? groups.order[first + i] : first + i;
    w += row0 * m.row_bytes;
    float c[2][4][4] = {};
    __syncthreads();
    for (int k0 = 0; k0 < width; k0 += BK) {
        with_type(m.type, [&](auto q) { unpack_tile<decltype(q)>(a_tile, w, m.row_bytes, m.rows - row0, k0, width); });
        for (int t = threadIdx.x; t < BN * BK / 8; t += 256) {
            const int column = t / (BK / 8), k = t % (BK / 8) * 8;
            uint4 value = {0, 0, 0, 0};
            if (pairs[column] >= 0 && k0 + k < width)
                value = *reinterpret_cast<const uint4*>(x + (u64)(pairs[column] / groups.share) * width + k0 + k);
            *reinterpret_cast<uint4*>(&b_tile[column][k]) = value;
        }
        __syncthreads();
        for (int k = 0; k < BK; k += 16) {
            u32 a[2][4], b[2][4];
            for (int i = 0; i < 2; i++) ldmatrix(a[i], &a_tile[wm + 16 * i + (lane & 15)][k + (lane >> 4) * 8]);
            for (int j = 0; j < 2; j++) ldmatrix(b[j], &b_tile[wn + 16 * j + (lane >> 4) * 8 + (lane & 7)][k + (lane >> 3 & 1) * 8]);
            for (int i = 0; i < 2; i++)
                for (int j = 0; j < 4; j++) mma(c[i][j], a[i], &b[j >> 1][2 * (j & 1)]);
        }
        __syncthreads();
    }
    for (int j = 0; j < 4; j++)
        for (int half = 0; half < 2; half++) {
            const int column = wn + 8 * j + 2 * (lane & 3) + half, pair = pairs[column];
            if (pair < 0) continue;
            const float factor = scale[pair / groups.share];
            for (int i = 0; i < 2; i++)
                for (int lower = 0; lower < 2; lower++) {
                    const int row = row0 + wm + 16 * i + 8 * lower + (lane >> 2);
                    if (row < m.rows) m.out[(u64)pair * m.rows + row] = c[i][j][2 * lower + half] * factor + (bias ? bias[row] : 0);
                }
        }
}
