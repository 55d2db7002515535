// What every kernel here may use. No headers: a machine without the CUDA toolkit compiles this too.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define FULL 0xffffffffu

// Every kernel begins with it: a graph starts a kernel's blocks while the one before still runs (runtime/cuda/module.py), and until
// that one is through nothing may be read but what no kernel writes.
__device__ __forceinline__ void after_previous() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

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

// Loads that stay in order, so that the weights of several rows are on their way before the first is used.
__device__ __forceinline__ u32 read4(const u8* p) {
    u32 v;
    asm volatile("ld.global.nc.u32 %0, [%1];" : "=r"(v) : "l"(p));
    return v;
}

__device__ __forceinline__ uint2 read8(const u8* p) {
    uint2 v;
    asm volatile("ld.global.nc.v2.u32 {%0,%1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(p));
    return v;
}

__device__ __forceinline__ uint4 read16(const u8* p) {
    uint4 v;
    asm volatile("ld.global.nc.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
    return v;
}

// The same of what another kernel has written while this one waited.
__device__ __forceinline__ uint4 fresh16(const u8* p) {
    uint4 v;
    asm volatile("ld.global.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
    return v;
}

// WORDS words at an address that is a multiple of ALIGN, 1 or 2: from aligned words. Those end within the allocation, for where
// the last is read, p + 4 WORDS is no multiple of 4.
template <int WORDS> __device__ __forceinline__ void load_odd(const u8* p, u32* q) {
    const u32 shift = 8 * ((u64)p & 3);
    u32 word[WORDS + 1] = {};
#pragma unroll
    for (int i = 0; i < WORDS; i++) word[i] = read4(p - shift / 8 + 4 * i);
    if (shift) word[WORDS] = read4(p - shift / 8 + 4 * WORDS);
#pragma unroll
    for (int i = 0; i < WORDS; i++) q[i] = __funnelshift_r(word[i], word[i + 1], shift);
}

// Eight bytes at an address that is a multiple of ALIGN.
template <int ALIGN> __device__ __forceinline__ void load8(const u8* p, u32* q) {
    if (ALIGN >= 8) {
        const uint2 v = read8(p);
        q[0] = v.x, q[1] = v.y;
    } else if (ALIGN == 4) {
        q[0] = read4(p), q[1] = read4(p + 4);
    } else {
        load_odd<2>(p, q);
    }
}

// Sixteen bytes.
template <int ALIGN> __device__ __forceinline__ void load16(const u8* p, u32* q) {
    if (ALIGN >= 16) {
        const uint4 v = read16(p);
        q[0] = v.x, q[1] = v.y, q[2] = v.z, q[3] = v.w;
    } else if (ALIGN >= 4) {
        load8<ALIGN>(p, q), load8<ALIGN>(p + 8, q + 2);
    } else {
        load_odd<4>(p, q);
    }
}

// How rows of x are multiplied: in int8 with a scale for 256 values or for 32 (packed.cu), or, as FORMATS, as they are.
enum Format { Q8_K_ROWS, Q8_0_ROWS, FORMATS };

// 32 integers of a block, in two runs of 16 that lie STEP apart, and what makes values of them.
enum Form { PLAIN, OFFSET, SCALED };  // value = d * q;  d * q + least;  d * scale * q + least * minimum
struct Ints {
    u32 q[8];
    u32 scales, minimums;  // of the two runs, in signed bytes
    float d, least;
};

// The low nibbles of 16 bytes, then the high ones.
__device__ __forceinline__ void nibbles(const u32* packed, u32* q) {
#pragma unroll
    for (int i = 0; i < 4; i++) q[i] = packed[i] & 0x0f0f0f0f, q[4 + i] = packed[i] >> 4 & 0x0f0f0f0f;
}

// Q4_K and Q5_K: d * scale and dmin * min of one of a block's eight groups (runtime/quants/super_block.py has the layout).
__device__ __forceinline__ float2 scale_min(const u8* b, int group) {
    const uint4 head = read16(b);
    int shift = 8 * (group & 3);
    u32 first = head.y >> shift & 255, second = head.z >> shift & 255, third = head.w >> shift & 255;
    u32 scale = group < 4 ? first & 63 : third & 15 | first >> 6 << 4;
    u32 least = group < 4 ? second & 63 : third >> 4 | second >> 6 << 4;
    return make_float2(half_bits(head.x & 0xffff) * scale, half_bits(head.x >> 16) * least);
}

// Q4_K and Q5_K: the scales and the minimums of groups 2 pair and 2 pair + 1, and their factors.
__device__ __forceinline__ void scale_min_pair(const u8* b, int pair, Ints& o) {
    const uint4 head = read16(b);
    const int shift = 16 * (pair & 1);
    const u32 first = head.y >> shift, second = head.z >> shift, third = head.w >> shift;
    o.scales = pair < 2 ? first & 0x3f3f : third & 0x0f0f | first >> 2 & 0x3030;
    o.minimums = pair < 2 ? second & 0x3f3f : third >> 4 & 0x0f0f | second >> 2 & 0x3030;
    o.d = half_bits(head.x & 0xffff), o.least = -half_bits(head.x >> 16);
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

// What the nibbles of 16 bytes choose among sixteen values that are 128 more than they mean, as signed bytes; low nibbles first.
__device__ __forceinline__ void lookup_nibbles(u32 a, u32 b, u32 c, u32 d, const u32* packed, u32* q) {
    a ^= 0x80808080, b ^= 0x80808080, c ^= 0x80808080, d ^= 0x80808080;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const u32 places = packed[i] & 0x77777777, upper = 0x32103210 | packed[i] >> 1 & 0x44444444;
        const u32 front = __byte_perm(__byte_perm(a, b, places), __byte_perm(c, d, places), upper);
        const u32 back = __byte_perm(__byte_perm(a, b, places >> 16), __byte_perm(c, d, places >> 16), upper >> 16);
        q[i] = __byte_perm(front, back, 0x6420), q[4 + i] = __byte_perm(front, back, 0x7531);
    }
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

__device__ __forceinline__ u32 warp_greatest(u32 x) {
#if __CUDA_ARCH__ >= 800
    return __reduce_max_sync(FULL, x);
#else
    for (int step = 16; step; step >>= 1) x = max(x, __shfl_xor_sync(FULL, x, step));
    return x;
#endif
}

__device__ __forceinline__ u32 warp_least(u32 x) { return ~warp_greatest(~x); }

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

enum Activation { SILU, GELU, SWIGLU_OAI, SIGMOID_GATE };  // numbered as in runtime/kernels/activations.py

// activation(gate) * up
__device__ __forceinline__ float activate(int code, float gate, float up) {
    if (code == SILU) return gate / (1.0f + expf(-gate)) * up;
    if (code == GELU) return gate / (1.0f + expf(-1.5957691216f * gate * (1.0f + 0.044715f * gate * gate))) * up;
    if (code == SIGMOID_GATE) return up / (1.0f + expf(-gate));
    gate = fminf(gate, 7.0f), up = fminf(fmaxf(up, -7.0f), 7.0f);
    return gate / (1.0f + expf(-1.702f * gate)) * (up + 1.0f);
}
