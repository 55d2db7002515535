// The hand-off of experts to the CPU inside one graph: rows go out through mapped host memory, their sum comes back.
//
// Tickets count modulo 2^32. The GPU publishes one when x, ids and weights are written; the CPU answers with the same number.
// Polling is by loads: read-modify-write on host memory is not promised to be atomic with the CPU everywhere.

#define DEADLINE 2000000000ull  // nanoseconds without an answer

struct Mailbox {  // in mapped host memory
    u32 *ticket, *reply, *abort;
    float *x, *y, *weights;
    int *ids;
};

__device__ __forceinline__ u64 nanoseconds() {
    u64 now;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
    return now;
}

__device__ __forceinline__ u32 load_acquire(const u32* p) {
    u32 value;
    asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(p) : "memory");
    return value;
}

__device__ __forceinline__ void store_release(u32* p, u32 value) {
    asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(p), "r"(value) : "memory");
}

// One block: give the CPU the rows and its pairs (id -1: not its). `sent` is the ticket counter, on the device.
extern "C" __global__ void send(Mailbox box, const float* x, const int* ids, const float* weights, const int* where, int k, int width,
                                u32* sent, const int* rows) {
    after_previous();
    const int n = *rows * width / 4, pairs = *rows * k;
    for (int i = threadIdx.x; i < n; i += blockDim.x) reinterpret_cast<float4*>(box.x)[i] = reinterpret_cast<const float4*>(x)[i];
    for (int p = threadIdx.x; p < pairs; p += blockDim.x) box.ids[p] = where[p] == ON_CPU ? ids[p] : -1, box.weights[p] = weights[p];
    __threadfence_system();
    __syncthreads();
    if (threadIdx.x == 0) store_release(box.ticket, ++*sent);
}

// One block: wait for the CPU's sum and add it to the GPU's own (or take it alone).
extern "C" __global__ void receive(Mailbox box, const float* own, float* out, int width, const u32* sent, const int* rows) {
    after_previous();
    if (threadIdx.x == 0) {
        const u32 wanted = *sent;
        const u64 start = nanoseconds();
        for (int spins = 0; load_acquire(box.reply) != wanted && !*(volatile u32*)box.abort; spins++)
            if ((spins & 255) == 255 && nanoseconds() - start > DEADLINE) store_release(box.abort, 1);
    }
    __syncthreads();
    const int n = *rows * width / 4;
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        float4 y;
        asm volatile("ld.volatile.global.v4.f32 {%0,%1,%2,%3}, [%4];" : "=f"(y.x), "=f"(y.y), "=f"(y.z), "=f"(y.w) : "l"(reinterpret_cast<float4*>(box.y) + i));
        if (own) {
            const float4 o = reinterpret_cast<const float4*>(own)[i];
            y.x += o.x, y.y += o.y, y.z += o.z, y.w += o.w;
        }
        reinterpret_cast<float4*>(out)[i] = y;
    }
}
