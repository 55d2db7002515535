// What every kernel here may use. No headers: a machine without the CUDA toolkit compiles this too.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define FULL 0xffffffffu

__device__ __forceinline__ float half_bits(u32 bits) {
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"((u16)bits));
    return f;
}

__device__ __forceinline__ u16 to_half(float f) {
    u16 h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f));
    return h;
}

// Two floats as f16x2, `low` in the lower half.
__device__ __forceinline__ u32 to_halves(float low, float high) {
#if __CUDA_ARCH__ >= 800
    u32 pair;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
#else
    return to_half(low) | (u32)to_half(high) << 16;
#endif
}

__device__ __forceinline__ u32 short_at(const u8* p) { return *reinterpret_cast<const u16*>(p); }
__device__ __forceinline__ float half_at(const u8* p) { return half_bits(short_at(p)); }

// Eight bytes at an address that is a multiple of ALIGN.
template <int ALIGN> __device__ __forceinline__ void load8(const u8* p, u32* q) {
    if (ALIGN >= 8) {
        uint2 v = *reinterpret_cast<const uint2*>(p);
        q[0] = v.x, q[1] = v.y;
    } else if (ALIGN == 4) {
        q[0] = reinterpret_cast<const u32*>(p)[0], q[1] = reinterpret_cast<const u32*>(p)[1];
    } else {  // from aligned words: those end within the allocation, since p + 8 is no multiple of 4 where the third is read
        const u32 shift = 8 * ((u64)p & 3);
        const u32* words = reinterpret_cast<const u32*>(p - shift / 8);
        const u32 first = words[0], second = words[1], third = shift ? words[2] : 0;
        q[0] = __funnelshift_r(first, second, shift), q[1] = __funnelshift_r(second, third, shift);
    }
}

// Q4_K and Q5_K: d * scale and dmin * min of one of a block's eight groups (runtime/quants/super_block.py has the layout).
__device__ __forceinline__ float2 scale_min(const u8* b, int group) {
    uint4 head = *reinterpret_cast<const uint4*>(b);
    int shift = 8 * (group & 3);
    u32 first = head.y >> shift & 255, second = head.z >> shift & 255, third = head.w >> shift & 255;
    u32 scale = group < 4 ? first & 63 : third & 15 | first >> 6 << 4;
    u32 least = group < 4 ? second & 63 : third >> 4 | second >> 6 << 4;
    return make_float2(half_bits(head.x & 0xffff) * scale, half_bits(head.x >> 16) * least);
}

// Sixteen values, each 128 more than it means, as bytes: those of IQ4_NL, and twice those of MXFP4.
#define IQ4_VALUES 0x3f2d1801u, 0x766a5d4fu, 0xa6998d81u, 0xf1d9c5b5u
#define MXFP4_VALUES 0x83828180u, 0x8c888684u, 0x7d7e7f80u, 0x74787a7cu

// The low nibble of each byte chooses a byte.
__device__ __forceinline__ u32 lookup(u32 a, u32 b, u32 c, u32 d, u32 codes) {
    codes &= 0x0f0f0f0f;
    const u32 packed = codes | codes >> 4, select = packed & 0xff | packed >> 8 & 0xff00;
    const u32 low = __byte_perm(a, b, select & 0x7777), high = __byte_perm(c, d, select & 0x7777);
    const u32 upper = (codes >> 3 & 0x01010101) * 255;
    return low & ~upper | high & upper;
}

// The low four bits of a word, one a byte.
__device__ __forceinline__ u32 spread_bits(u32 bits) { return (bits & 15) * 0x204081 & 0x01010101; }

// w[i] = d * q[i] + least for eight unsigned bytes. A byte in the mantissa of 2 ** 23 is a float without a conversion, which
// many cards do at a quarter of the speed.
__device__ __forceinline__ void scaled(float* w, const u32* q, float d, float least) {
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const float value = __uint_as_float(__byte_perm(q[i >> 2], 0x4b000000u, 0x7440 + (i & 3))) - 8388608.0f;
        w[i] = fmaf(d, value, least);
    }
}

__device__ __forceinline__ float warp_sum(float x) {
    for (int step = 16; step; step >>= 1) x += __shfl_xor_sync(FULL, x, step);
    return x;
}

__device__ __forceinline__ float warp_max(float x) {
    for (int step = 16; step; step >>= 1) x = fmaxf(x, __shfl_xor_sync(FULL, x, step));
    return x;
}

// The sum or the greatest over a block of at most 1024 threads; every thread gets it.
template <bool MAX> __device__ __forceinline__ float block_reduce(float x) {
    __shared__ float part[32];
    const int lane = threadIdx.x & 31;
    x = MAX ? warp_max(x) : warp_sum(x);
    __syncthreads();  // of the use before this one
    if (lane == 0) part[threadIdx.x >> 5] = x;
    __syncthreads();
    x = lane < blockDim.x / 32 ? part[lane] : MAX ? -3e38f : 0.0f;
    return MAX ? warp_max(x) : warp_sum(x);
}

enum Activation { SILU, GELU, SWIGLU_OAI };  // numbered as in runtime/kernels/activations.py

// activation(gate) * up
__device__ __forceinline__ float activate(int code, float gate, float up) {
    if (code == SILU) return gate / (1.0f + __expf(-gate)) * up;
    if (code == GELU) return gate / (1.0f + __expf(-1.5957691216f * gate * (1.0f + 0.044715f * gate * gate))) * up;
    gate = fminf(gate, 7.0f), up = fminf(fmaxf(up, -7.0f), 7.0f);
    return gate / (1.0f + __expf(-1.702f * gate)) * (up + 1.0f);
}
