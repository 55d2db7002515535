// What kernels need of CUDA, for one core of a CPU: their threads are fibers that change at barriers and exchanges.
// tests/cuda_on_cpu.py puts this before the sources of runtime/cuda/source.
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <type_traits>
#include <vector>

#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static
#define __align__(n) __attribute__((aligned(n)))

struct uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

struct Place { unsigned x, y, z; };
static Place threadIdx, blockIdx, blockDim, gridDim;

// ------------------------------------------------------------ arithmetic

template <class A, class B> inline auto min(A a, B b) { typedef decltype(a + b) T; return (T)a < (T)b ? (T)a : (T)b; }
template <class A, class B> inline auto max(A a, B b) { typedef decltype(a + b) T; return (T)a > (T)b ? (T)a : (T)b; }
template <class To, class From> inline To bits(From from) { To to; memcpy(&to, &from, sizeof(to)); return to; }

inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __fmul_rn(float a, float b) { volatile float product = a * b; return product; }
inline float __fadd_rn(float a, float b) { volatile float sum = a + b; return sum; }
inline int __float2int_rn(float x) { return (int)nearbyintf(x); }
inline int __float2int_rz(float x) { return (int)x; }
inline unsigned __float_as_uint(float x) { return bits<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return bits<float>(x); }
inline int __float_as_int(float x) { return bits<int>(x); }
inline float __int_as_float(int x) { return bits<float>(x); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }

inline unsigned __byte_perm(unsigned a, unsigned b, unsigned select) {
    const unsigned long long both = (unsigned long long)b << 32 | a;
    unsigned result = 0;
    for (int i = 0; i < 4; i++) {
        const unsigned choice = select >> 4 * i & 15;
        const unsigned byte = both >> 8 * (choice & 7) & 255;
        result |= (choice & 8 ? (byte & 128 ? 255 : 0) : byte) << 8 * i;
    }
    return result;
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    return ((unsigned long long)high << 32 | low) >> (shift & 31);
}
inline int byte_of(int word, int i) { return (signed char)(word >> 8 * i); }
inline int __dp4a(int a, int b, int sum) {
    for (int i = 0; i < 4; i++) sum += byte_of(a, i) * byte_of(b, i);
    return sum;
}
inline int __dp2a_lo(int a, int b, int sum) { return sum + (short)a * byte_of(b, 0) + (short)(a >> 16) * byte_of(b, 1); }
inline int __dp2a_hi(int a, int b, int sum) { return sum + (short)a * byte_of(b, 2) + (short)(a >> 16) * byte_of(b, 3); }
template <class T> inline T __ldg(const T* p) { return *p; }
template <class T> inline T __ldcs(const T* p) { return *p; }
template <class T, class V> inline T atomicAdd(T* p, V value) { T old = *p; *p += value; return old; }

// ------------------------------------------------------------ fibers

extern "C" void host_switch(void** from, void* to);  // keeps the registers that a call keeps
asm(R"(
.text
.globl host_switch
host_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");

const int MOST_THREADS = 1024, STACK = 256 << 10;

struct Barrier {
    int alive = 0, arrived = 0, turn = 0;
    void release() { if (alive && arrived == alive) arrived = 0, turn++; }
};

static void *main_stack, *stacks[MOST_THREADS], *tops[MOST_THREADS];
static bool done[MOST_THREADS];
static int fiber;
static Barrier block, warps[MOST_THREADS / 32];
static unsigned long long slots[2][MOST_THREADS];  // what a warp's threads show each other, in turn
static int turns[MOST_THREADS];
static int counts[3], count_turns[MOST_THREADS];  // of __syncthreads_count: one in use, one that is still read, one made ready
static const std::function<void()>* body;

static void wait_at(Barrier& barrier) {
    const int turn = barrier.turn;
    barrier.arrived++, barrier.release();
    while (barrier.turn == turn) host_switch(&tops[fiber], main_stack);
}
inline void __syncthreads() { wait_at(block); }
inline void __syncwarp(unsigned = ~0u) { wait_at(warps[fiber / 32]); }
inline int __syncthreads_count(int predicate) {
    const int turn = count_turns[fiber]++;
    counts[turn % 3] += predicate != 0;
    wait_at(block);
    counts[(turn + 2) % 3] = 0;
    return counts[turn % 3];
}
template <class T> inline unsigned long long* shown(T value) {  // by all threads of the warp
    const int me = fiber, turn = turns[me] ^= 1;
    memcpy(&slots[turn][me], &value, sizeof(value));
    wait_at(warps[me / 32]);
    return &slots[turn][me / 32 * 32];
}
template <class T> inline T of_lane(T value, int lane) { T other; memcpy(&other, &shown(value)[lane & 31], sizeof(other)); return other; }
template <class T> inline T __shfl_sync(unsigned, T value, int lane) { return of_lane(value, lane); }
template <class T> inline T __shfl_xor_sync(unsigned, T value, int mask) { return of_lane(value, (fiber & 31) ^ mask); }
inline unsigned __ballot_sync(unsigned, int predicate) {
    const unsigned long long* all = shown((unsigned long long)(predicate != 0));
    unsigned votes = 0;
    for (int i = 0; i < 32; i++) votes |= (unsigned)(all[i] & 1) << i;
    return votes;
}

// ------------------------------------------------------------ tensor cores, as PTX lays their operands out over a warp

struct Operands { void* c; const unsigned *a, *b; };
static Operands operands[MOST_THREADS];

// The last thread of a warp that comes does the work of all.
template <class F> inline void as_a_warp(void* c, const unsigned* a, const unsigned* b, F work) {
    Barrier& barrier = warps[fiber / 32];
    const int turn = barrier.turn;
    operands[fiber] = {c, a, b};
    if (++barrier.arrived == barrier.alive) work(&operands[fiber / 32 * 32]), barrier.release();
    while (barrier.turn == turn) host_switch(&tops[fiber], main_stack);
}

inline unsigned short half_at_row(const Operands* all, int m, int row, int i) { return ((const unsigned short*)all[8 * m + row].a)[i]; }
inline void ldmatrix(unsigned* r, const unsigned short* p) {
    as_a_warp(r, (const unsigned*)p, nullptr, [](const Operands* all) {
        for (int lane = 0; lane < 32; lane++)
            for (int m = 0; m < 4; m++) ((unsigned*)all[lane].c)[m] = all[8 * m + lane / 4].a[lane % 4];
    });
}
inline void ldmatrix_turned(unsigned* r, const unsigned short* p) {
    as_a_warp(r, (const unsigned*)p, nullptr, [](const Operands* all) {
        for (int lane = 0; lane < 32; lane++)
            for (int m = 0; m < 4; m++) {
                const int row = lane % 4 * 2, i = lane / 4;
                ((unsigned*)all[lane].c)[m] = half_at_row(all, m, row, i) | half_at_row(all, m, row + 1, i) << 16;
            }
    });
}

// c += a b of 16 rows, 16 values, 8 columns. EACH values that follow one another lie in one register.
template <class T, int EACH, class A, class B> inline void product(const Operands* all, A value_a, B value_b) {
    T a[16][16], b[8][16];
    for (int row = 0; row < 16; row++)
        for (int k = 0; k < 16; k++) a[row][k] = value_a(all[row % 8 * 4 + k % (4 * EACH) / EACH].a, row / 8, k / (4 * EACH), k % EACH);
    for (int column = 0; column < 8; column++)
        for (int k = 0; k < 16; k++) b[column][k] = value_b(all[column * 4 + k % (4 * EACH) / EACH].b, k / (4 * EACH), k % EACH);
    for (int lane = 0; lane < 32; lane++)
        for (int e = 0; e < 4; e++) {
            T sum = ((T*)all[lane].c)[e];
            for (int k = 0; k < 16; k++) sum += a[lane / 4 + e / 2 * 8][k] * b[lane % 4 * 2 + e % 2][k];
            ((T*)all[lane].c)[e] = sum;
        }
}
inline float half_of(unsigned word, int i) { return (float)bits<_Float16>((unsigned short)(word >> 16 * i)); }
inline void mma(float* c, const unsigned* a, const unsigned* b) {
    as_a_warp(c, a, b, [](const Operands* all) {
        product<float, 2>(all, [](const unsigned* r, int lower, int back, int i) { return half_of(r[lower + 2 * back], i); },
                          [](const unsigned* r, int back, int i) { return half_of(r[back], i); });
    });
}
inline void mma_ints(int* c, const unsigned* a, unsigned b) {
    as_a_warp(c, a, &b, [](const Operands* all) {
        product<int, 4>(all, [](const unsigned* r, int lower, int, int i) { return byte_of(r[lower], i); },
                        [](const unsigned* r, int, int i) { return byte_of(r[0], i); });
    });
}
inline void mma_ints_wide(int* c, const unsigned* a, const unsigned* b) { mma_ints(c, a, b[0]), mma_ints(c, a + 2, b[1]); }

static void enter() {
    (*body)();
    done[fiber] = true;
    warps[fiber / 32].alive--, warps[fiber / 32].release();
    block.alive--, block.release();
    for (;;) host_switch(&tops[fiber], main_stack);
}

static void run_block(int threads) {
    block = Barrier(), block.alive = threads;
    for (int w = 0; w < MOST_THREADS / 32; w++) warps[w] = Barrier(), warps[w].alive = max(0, min(32, threads - 32 * w));
    memset(slots, 0, sizeof(slots)), memset(counts, 0, sizeof(counts)), memset(count_turns, 0, sizeof(count_turns));
    for (int t = 0; t < threads; t++) {
        if (!stacks[t]) stacks[t] = aligned_alloc(64, STACK);
        void** top = (void**)((char*)stacks[t] + STACK - 64);
        *--top = nullptr, *--top = (void*)enter;
        for (int i = 0; i < 6; i++) *--top = nullptr;
        tops[t] = top, done[t] = false;
    }
    for (int left = threads; left;) {
        left = 0;
        for (int t = 0; t < threads; t++)
            if (!done[t]) {
                fiber = t, threadIdx = {(unsigned)t, 0, 0};
                host_switch(&main_stack, tops[t]);
                left += !done[t];
            }
    }
}

static void run_grid(const unsigned* grid, int threads, const std::function<void()>& kernel) {
    body = &kernel, gridDim = {grid[0], grid[1], grid[2]}, blockDim = {(unsigned)threads, 1, 1};
    for (unsigned z = 0; z < grid[2]; z++)
        for (unsigned y = 0; y < grid[1]; y++)
            for (unsigned x = 0; x < grid[0]; x++) blockIdx = {x, y, z}, run_block(threads);
}
