// A Mixture of Experts: choose, and run those experts that the GPU takes.

#define MOST_EXPERTS 1024

enum Where { ON_CPU, IN_VRAM, OVER_PCIE };  // who computes a pair (row, expert), and from what memory

// By a warp: softmax over the logits, the k best (the lower id first on a tie), their weights. A lane has PER experts.
template <int PER>
__device__ void choose_row(const float* logits, int* ids, float* weights, int n_experts, int k, int normalize, float scale) {
    const int lane = threadIdx.x & 31;
    float p[PER], top = -3e38f, total = 0, kept = 0;
    for (int i = 0; i < PER; i++) p[i] = 32 * i + lane < n_experts ? logits[32 * i + lane] : -3e38f, top = fmaxf(top, p[i]);
    top = warp_max(top);
    for (int i = 0; i < PER; i++) total += __expf(p[i] - top);
    total = warp_sum(total);
    for (int j = 0; j < k; j++) {
        float best = -3e38f;
        int id = n_experts;
        for (int i = 0; i < PER; i++)
            if (p[i] > best) best = p[i], id = 32 * i + lane;
        for (int step = 16; step; step >>= 1) {
            const float other = __shfl_xor_sync(FULL, best, step);
            const int its = __shfl_xor_sync(FULL, id, step);
            if (other > best || (other == best && its < id)) best = other, id = its;
        }
        id = min(id, n_experts - 1);  // of a row that is not a number
        for (int i = 0; i < PER; i++)
            if (32 * i + lane == id) p[i] = -3.1e38f;
        const float weight = __expf(best - top) / total;
        kept += weight;
        if (lane == 0) ids[j] = id, weights[j] = weight;
    }
    __syncwarp();
    if (lane < k) weights[lane] = weights[lane] / (normalize ? kept : 1.0f) * scale;  // k <= 32
}

// One warp a row. A pair runs where its expert lies; of a row's experts that are not in VRAM, the part `over_pcie` is read by
// the GPU from the host's memory, and the others are the CPU's.
extern "C" __global__ void choose(const float* logits, const u64* in_vram, float over_pcie, int* ids, float* weights, int* where,
                                  int n_experts, int k, int normalize, float scale, const int* rows) {
    const int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (row >= *rows) return;
    ids += row * k, weights += row * k, where += row * k;
    logits += (u64)row * n_experts;
    const int each = (n_experts + 31) / 32;
    if (each <= 1) choose_row<1>(logits, ids, weights, n_experts, k, normalize, scale);
    else if (each <= 4) choose_row<4>(logits, ids, weights, n_experts, k, normalize, scale);
    else if (each <= 8) choose_row<8>(logits, ids, weights, n_experts, k, normalize, scale);
    else choose_row<MOST_EXPERTS / 32>(logits, ids, weights, n_experts, k, normalize, scale);
    __syncwarp();
    if (threadIdx.x & 31) return;
    int absent = 0, read = 0;
    for (int j = 0; j < k; j++) absent += !in_vram[ids[j]];
    const int share = (int)(absent * over_pcie + 0.5f);
    for (int j = 0; j < k; j++) where[j] = in_vram[ids[j]] ? IN_VRAM : read++ < share ? OVER_PCIE : ON_CPU;
}

// The pairs that lie in VRAM sorted by expert, and tiles of at most BN of them. One block.
extern "C" __global__ void plan(const int* ids, const int* where, int n_experts, int k, int* order, int4* tiles, int* n_tiles, const int* rows) {
    __shared__ int counts[MOST_EXPERTS], starts[MOST_EXPERTS];
    for (int e = threadIdx.x; e < n_experts; e += blockDim.x) counts[e] = 0;
    __syncthreads();
    const int pairs = *rows * k;
    for (int p = threadIdx.x; p < pairs; p += blockDim.x)
        if (where[p] == IN_VRAM) atomicAdd(&counts[ids[p]], 1);
    __syncthreads();
    if (threadIdx.x == 0) {
        int end = 0, tile = 0;
        for (int e = 0; e < n_experts; e++) {
            starts[e] = end;
            for (int done = 0; done < counts[e]; done += BN) tiles[tile++] = make_int4(e, end + done, min(BN, counts[e] - done), 0);
            end += counts[e];
        }
        *n_tiles = tile;
    }
    __syncthreads();
    for (int p = threadIdx.x; p < pairs; p += blockDim.x)
        if (where[p] == IN_VRAM) order[atomicAdd(&starts[ids[p]], 1)] = p;
}

struct Stack {  // the matrices of one kind of all experts
    const u64* address;  // of those in VRAM
    const u8* host;      // all of them in the host's memory, `bytes` each
    u64 bytes, row_bytes;
    int rows, type;
};

// The matrix of a pair that the GPU takes, else null.
__device__ __forceinline__ const u8* matrix(const Stack& stack, int where, int id) {
    if (where == IN_VRAM) return reinterpret_cast<const u8*>(stack.address[id]);
    return where == OVER_PCIE ? stack.host + id * stack.bytes : nullptr;
}

// hidden[pair] = silu(gate x) * up x. Grid: (rows / 16, pairs); a warp for two rows of both matrices.
extern "C" __global__ void __launch_bounds__(256) expert_hidden(Stack gate, Stack up, const float* x, int width, const int* ids, const int* where, int k,
                                                                   float* hidden, const int* rows) {
    const int pair = blockIdx.y, row = blockIdx.x * 16 + (threadIdx.x >> 5) * 2, next = min(row + 1, gate.rows - 1);
    if (pair >= *rows * k || row >= gate.rows) return;
    const u8 *g = matrix(gate, where[pair], ids[pair]), *u = matrix(up, where[pair], ids[pair]);
    if (!g) return;
    x += (u64)(pair / k) * width;
    float sums[4][1] = {};  // gate, up; gate, up of the next row
    if (gate.type == up.type) {
        const u8* const w[4] = {g + row * gate.row_bytes, u + row * up.row_bytes, g + next * gate.row_bytes, u + next * up.row_bytes};
        with_type(gate.type, [&](auto q) { dot<decltype(q)>(w, x, width, sums); });
    } else {
        const u8* const a[2] = {g + row * gate.row_bytes, g + next * gate.row_bytes};
        const u8* const b[2] = {u + row * up.row_bytes, u + next * up.row_bytes};
        float ours[2][1] = {}, others[2][1] = {};
        with_type(gate.type, [&](auto q) { dot<decltype(q)>(a, x, width, ours); });
        with_type(up.type, [&](auto q) { dot<decltype(q)>(b, x, width, others); });
        sums[0][0] = ours[0][0], sums[1][0] = others[0][0], sums[2][0] = ours[1][0], sums[3][0] = others[1][0];
    }
    for (int r = 0; r < 2; r++) {
        const float a = warp_sum(sums[2 * r][0]), b = warp_sum(sums[2 * r + 1][0]);
        if ((threadIdx.x & 31) == 0 && row + r < gate.rows) hidden[(u64)pair * gate.rows + row + r] = silu(a) * b;
    }
}

#define DOWN_ROWS 4  // of w, by one block

// out[row] = sum over its experts of weight * down hidden. Grid: (rows of w / DOWN_ROWS, rows of x); a warp for every eighth expert.
extern "C" __global__ void __launch_bounds__(256) expert_down(Stack down, const float* hidden, int width, const int* ids, const int* where,
                                                                 const float* weights, int k, float* out, const int* rows) {
    __shared__ float shared[8][DOWN_ROWS];
    const int row = blockIdx.y, first = blockIdx.x * DOWN_ROWS, warp = threadIdx.x >> 5;
    if (row >= *rows) return;
    float total[DOWN_ROWS] = {};
    for (int j = warp; j < k; j += 8) {
        const u8* m = matrix(down, where[row * k + j], ids[row * k + j]);
        if (!m) continue;
        const u8* w[DOWN_ROWS];
        for (int r = 0; r < DOWN_ROWS; r++) w[r] = m + min(first + r, down.rows - 1) * down.row_bytes;
        float sums[DOWN_ROWS][1] = {};
        with_type(down.type, [&](auto q) { dot<decltype(q)>(w, hidden + (u64)(row * k + j) * width, width, sums); });
        for (int r = 0; r < DOWN_ROWS; r++) total[r] += weights[row * k + j] * sums[r][0];
    }
    for (int r = 0; r < DOWN_ROWS; r++) {
        const float sum = warp_sum(total[r]);
        if ((threadIdx.x & 31) == 0) shared[warp][r] = sum;
    }
    __syncthreads();
    if (threadIdx.x < DOWN_ROWS && first + threadIdx.x < down.rows) {
        float sum = 0;
        for (int w = 0; w < 8; w++) sum += shared[w][threadIdx.x];
        out[(u64)row * down.rows + first + threadIdx.x] = sum;
    }
}

// One block a row: out = sum over the row's experts in VRAM of weight * y[pair].
extern "C" __global__ void combine(const float* y, const int* where, const float* weights, int k, float* out, int width, const int* rows) {
    const int row = blockIdx.x;
    if (row >= *rows) return;
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        float total = 0;
        for (int j = 0; j < k; j++)
            if (where[row * k + j] == IN_VRAM) total += weights[row * k + j] * y[((u64)row * k + j) * width + i];
        out[(u64)row * width + i] = total;
    }
}
