// Rows of x in int8, with the values that the CPU's have (runtime/quants/activations.py): every 256 of a row lie in 320 bytes.

#define CHUNK 256         // values
#define CHUNK_BYTES 320   // i8[256], f32 d[8], i16[16]: a scale for every 32 values, the sum of every 16
#define CHUNK_SCALES 256
#define CHUNK_SUMS 288
#define SMALLEST 7.888609052210118e-31f  // 2 ** -100: 127 / it would overflow soon

struct Rows {
    const float* x;
    const u8* packed[FORMATS];  // null where no type asks for it
    int width;
};

struct Packing {  // where a kernel leaves its rows in int8 too; null where nobody asks
    u8* out[FORMATS];
};

__device__ __forceinline__ int packed_bytes(int width) { return (width + CHUNK - 1) / CHUNK * CHUNK_BYTES; }

__device__ __forceinline__ Rows from_row(Rows rows, int row) {
    rows.x += (u64)row * rows.width;
    for (int f = 0; f < FORMATS; f++) rows.packed[f] += (u64)row * packed_bytes(rows.width);
    return rows;
}

// The greatest magnitude of 8 values a lane, of LANES neighbours; a NaN is greater than all.
template <int LANES> __device__ __forceinline__ float peak_of(const float* v) {
    u32 top = 0;
#pragma unroll
    for (int i = 0; i < 8; i++) top = max(top, __float_as_uint(v[i]) & 0x7fffffff);
    for (int step = LANES / 2; step; step >>= 1) top = max(top, __shfl_xor_sync(FULL, top, step));
    return __uint_as_float(top);
}

// The scale of values whose greatest magnitude is `peak`, and its inverse.
__device__ __forceinline__ float2 scale_of(float peak) {
    return peak < SMALLEST ? make_float2(0, 0) : make_float2(peak / 127.0f, 127.0f / peak);
}

// A float whose low byte is x * inverse, rounded half to even.
__device__ __forceinline__ u32 rounded(float x, float inverse) { return __float_as_uint(__fadd_rn(__fmul_rn(x, inverse), 12582912.0f)); }

// A warp packs a chunk: 8 values a lane. LANES of them share a scale.
template <int LANES> __device__ __forceinline__ void pack_chunk(const float* v, u8* chunk) {
    const int lane = threadIdx.x & 31;
    const float2 scale = scale_of(peak_of<LANES>(v));
    u32 q[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const u32 low = __byte_perm(rounded(v[4 * i], scale.y), rounded(v[4 * i + 1], scale.y), 0x0040);
        q[i] = __byte_perm(low, __byte_perm(rounded(v[4 * i + 2], scale.y), rounded(v[4 * i + 3], scale.y), 0x0040), 0x5410);
    }
    int sum = __dp4a((int)q[0], 0x01010101, __dp4a((int)q[1], 0x01010101, 0));
    sum += __shfl_xor_sync(FULL, sum, 1);
    *reinterpret_cast<uint2*>(chunk + 8 * lane) = make_uint2(q[0], q[1]);
    if (!(lane & 1)) *reinterpret_cast<short*>(chunk + CHUNK_SUMS + lane) = (short)sum;
    if (!(lane & 3)) *reinterpret_cast<float*>(chunk + CHUNK_SCALES + lane) = scale.x;
}

// A warp leaves 256 values of a row, 8 a lane, in the formats that are asked for.
__device__ __forceinline__ void pack_values(const float* v, const Packing& packing, int row, int chunk, int width) {
    const u64 at = (u64)row * packed_bytes(width) + chunk * CHUNK_BYTES;
    if (packing.out[Q8_K_ROWS]) pack_chunk<32>(v, packing.out[Q8_K_ROWS] + at);
    if (packing.out[Q8_0_ROWS]) pack_chunk<4>(v, packing.out[Q8_0_ROWS] + at);
}

// Eight values from `at` on; zeros beyond the row, of which there are a multiple of four.
__device__ __forceinline__ void load_values(const float* x, int at, int width, float* v) {
    const float4 none = make_float4(0, 0, 0, 0), *from = reinterpret_cast<const float4*>(x + at);
    const float4 a = at < width ? from[0] : none, b = at + 4 < width ? from[1] : none;
    v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w, v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
}

__device__ __forceinline__ void store_values(float* to, const float* v) {
    reinterpret_cast<float4*>(to)[0] = make_float4(v[0], v[1], v[2], v[3]);
    reinterpret_cast<float4*>(to)[1] = make_float4(v[4], v[5], v[6], v[7]);
}

// Grid: (chunks / 8, rows * share); a warp a chunk.
extern "C" __global__ void pack_rows(const float* x, Packing packing, int width, const int* rows, int share) {
    after_previous();
    const int row = blockIdx.y, chunk = blockIdx.x * 8 + threadIdx.x / 32;
    if (row >= *rows * share || chunk * CHUNK >= width) return;
    float v[8];
    load_values(x + (u64)row * width, chunk * CHUNK + 8 * (threadIdx.x & 31), width, v);
    pack_values(v, packing, row, chunk, width);
}
