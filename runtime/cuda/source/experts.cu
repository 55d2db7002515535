// A Mixture of Experts: choose, and run those experts that the GPU takes.

#define MOST_EXPERTS 1024

enum Where { ON_CPU, IN_VRAM, OVER_PCIE };  // who computes a pair (row, expert), and from what memory

enum Gating { SOFTMAX = 1, SIGMOID, SOFTMAX_OF_CHOSEN };  // numbered as in runtime/config.py

struct Routing {
    const float *bias, *factors;  // that count in the choice and not in the weights, and the other way round, or null
    int experts, k, normalize, gating, groups, groups_used;  // at most 32 groups, and k
    float scale;
};

// Only the experts of the groups whose two best scores have the largest sums stay in; of equal groups the first.
template <int PER> __device__ void keep_groups(float* score, float* shared, const Routing& r) {
    const int lane = threadIdx.x & 31, size = r.experts / r.groups;
    for (int i = 0; i < PER; i++)
        if (32 * i + lane < r.experts) shared[32 * i + lane] = score[i];
    __syncwarp();
    float best = -3e38f, second = -3e38f;
    for (int e = lane * size; lane < r.groups && e < (lane + 1) * size; e++) {
        second = fmaxf(second, fminf(best, shared[e]));
        best = fmaxf(best, shared[e]);
    }
    const float sum = best + second;
    int better = 0;
    for (int g = 0; g < r.groups; g++) {
        const float other = __shfl_sync(FULL, sum, g);
        better += other > sum || (other == sum && g < lane);
    }
    const u32 kept = __ballot_sync(FULL, lane < r.groups && better < r.groups_used);
    for (int i = 0; i < PER; i++)
        if (32 * i + lane < r.experts && !(kept >> (32 * i + lane) / size & 1)) score[i] = -3.1e38f;
}

struct Chosen {
    int id;
    float weight;
    bool present;  // in VRAM
};

// An integer, not 0, that is the greater the greater a number is; what is not a number counts as large.
__device__ __forceinline__ u32 rank_of(float x) {
    const u32 bits = __float_as_uint(x + 0.0f);  // 0 has one sign then
    return bits ^ ((u32)((int)bits >> 31) | 0x80000000u);
}

// By a warp: probabilities from the logits, the k best (the lower id first on a tie), their weights: one for each of the first k
// lanes. A lane has PER experts before.
template <int PER> __device__ Chosen choose_row(const float* logits, const u64* in_vram, const Routing& r, float* shared) {
    const int lane = threadIdx.x & 31;
    float p[PER], score[PER], top = -3e38f, total = 0, own = 0;
    u32 present[PER], word = 0;
    int mine = 0;
    for (int i = 0; i < PER; i++) present[i] = __ballot_sync(FULL, 32 * i + lane < r.experts && in_vram[32 * i + lane]);
    for (int i = 0; i < PER; i++) p[i] = 32 * i + lane < r.experts ? logits[32 * i + lane] : -3e38f, top = fmaxf(top, p[i]);
    if (r.gating == SOFTMAX) {
        top = warp_max(top);
        for (int i = 0; i < PER; i++) p[i] = expf(p[i] - top), total += p[i];
        total = warp_sum(total);
        for (int i = 0; i < PER; i++) p[i] /= total;
    } else if (r.gating == SIGMOID) {
        for (int i = 0; i < PER; i++) p[i] = 1.0f / (1.0f + expf(-p[i]));
    }
    for (int i = 0; i < PER; i++) {
        const int e = 32 * i + lane;
        score[i] = e < r.experts ? p[i] + (r.bias ? r.bias[e] : 0.0f) : -3e38f;
    }
    if (r.groups > 1) keep_groups<PER>(score, shared, r);
    u32 rank[PER];  // 0: out
    for (int i = 0; i < PER; i++) rank[i] = 32 * i + lane < r.experts ? rank_of(score[i]) : 0;
    for (int j = 0; j < r.k; j++) {
        u32 best = 0, id = r.experts - 1;
        for (int i = 0; i < PER; i++) best = max(best, rank[i]);
        best = warp_greatest(best);
        for (int i = PER - 1; i >= 0; i--)
            if (rank[i] == best) id = min(id, (u32)(32 * i + lane));
        id = warp_least(id);
        for (int i = 0; i < PER; i++)
            if (32 * i + lane == id) rank[i] = 0;
        if (lane == j) mine = id;
    }
    for (int i = 0; i < PER; i++) {
        const float weight = __shfl_sync(FULL, p[i], mine & 31);
        if (mine / 32 == i) own = weight;
    }
    const bool ours = lane < r.k;
    if (r.gating == SOFTMAX_OF_CHOSEN) own = expf(own - warp_max(ours ? own : -3e38f));
    const float kept = warp_sum(ours ? own : 0.0f);
    const bool divide = r.normalize || r.gating == SOFTMAX_OF_CHOSEN;
    const float factor = r.scale * (r.factors && ours ? r.factors[mine] : 1.0f);
    for (int i = 0; i < PER; i++) word = mine / 32 == i ? present[i] : word;
    return {mine, own / (divide ? fmaxf(kept, 6.103515625e-5f) : 1.0f) * factor, (word >> mine % 32 & 1) != 0};
}

// One warp a row. A pair runs where its expert lies; of a row's experts that are not in VRAM, the part `over_pcie` is read by
// the GPU from the host's memory, and the others are the CPU's. `uses`, if not null, counts how often each expert is chosen.
extern "C" __global__ void choose(const float* logits, const u64* in_vram, float over_pcie, int* ids, float* weights, int* where,
                                  int* uses, Routing r, const int* rows) {
    after_previous();
    __shared__ float shared[4][MOST_EXPERTS];
    const int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, k = r.k;
    float* scores = shared[threadIdx.x / 32];
    if (row >= *rows) return;
    ids += row * k, weights += row * k, where += row * k;
    logits += (u64)row * r.experts;
    const int each = (r.experts + 31) / 32, lane = threadIdx.x & 31;
    Chosen own;  // k <= 32: one a lane
    if (each <= 1) own = choose_row<1>(logits, in_vram, r, scores);
    else if (each <= 4) own = choose_row<4>(logits, in_vram, r, scores);
    else if (each <= 8) own = choose_row<8>(logits, in_vram, r, scores);
    else own = choose_row<MOST_EXPERTS / 32>(logits, in_vram, r, scores);
    const u32 absent = __ballot_sync(FULL, lane < k && !own.present);
    if (lane >= k) return;
    if (uses) atomicAdd(uses + own.id, 1);
    const int share = (int)(__popc(absent) * over_pcie + 0.5f), before = __popc(absent & (1u << lane) - 1);
    ids[lane] = own.id, weights[lane] = own.weight;
    where[lane] = own.present ? IN_VRAM : before < share ? OVER_PCIE : ON_CPU;
}

// The pairs that lie in VRAM sorted by expert, and tiles of at most BN of them. One block.
extern "C" __global__ void plan(const int* ids, const int* where, int n_experts, int k, int* order, int4* tiles, int* n_tiles, const int* rows) {
    after_previous();
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
    const float* bias;  // (experts, rows), or null
    int rows, type;
};

__device__ __forceinline__ float bias(const Stack& stack, int id, int row) {
    return stack.bias ? stack.bias[(u64)id * stack.rows + row] : 0.0f;
}

// The matrix of a pair that the GPU takes, else null.
__device__ __forceinline__ const u8* matrix(const Stack& stack, int where, int id) {
    if (where == IN_VRAM) return reinterpret_cast<const u8*>(stack.address[id]);
    return where == OVER_PCIE ? stack.host + id * stack.bytes : nullptr;
}

// hidden[pair] = activation(gate x) * up x. Grid: (rows / 16, pairs); a warp for two rows of both matrices.
extern "C" __global__ void __launch_bounds__(256, 3) expert_hidden(Stack gate, Stack up, Rows x, const int* ids, const int* where, int k,
                                                                   float* hidden, int activation, const int* rows) {
    after_previous();
    const int pair = blockIdx.y, row = blockIdx.x * 16 + (threadIdx.x >> 5) * 2, next = min(row + 1, gate.rows - 1);
    if (pair >= *rows * k || row >= gate.rows) return;
    const u8 *g = matrix(gate, where[pair], ids[pair]), *u = matrix(up, where[pair], ids[pair]);
    if (!g) return;
    x = from_row(x, pair / k);
    float sums[4][1] = {};  // gate, up; gate, up of the next row
    if (gate.type == up.type) {
        const u8* const w[4] = {g + row * gate.row_bytes, u + row * up.row_bytes, g + next * gate.row_bytes, u + next * up.row_bytes};
        with_type(gate.type, [&](auto q) { dot<decltype(q)>(w, x, sums); });
    } else {
        const u8* const a[2] = {g + row * gate.row_bytes, g + next * gate.row_bytes};
        const u8* const b[2] = {u + row * up.row_bytes, u + next * up.row_bytes};
        float ours[2][1] = {}, others[2][1] = {};
        with_type(gate.type, [&](auto q) { dot<decltype(q)>(a, x, ours); });
        with_type(up.type, [&](auto q) { dot<decltype(q)>(b, x, others); });
        sums[0][0] = ours[0][0], sums[1][0] = others[0][0], sums[2][0] = ours[1][0], sums[3][0] = others[1][0];
    }
    for (int r = 0; r < 2; r++) {
        const float a = warp_sum(sums[2 * r][0]), b = warp_sum(sums[2 * r + 1][0]);
        if ((threadIdx.x & 31) == 0 && row + r < gate.rows)
            hidden[(u64)pair * gate.rows + row + r] =
                activate(activation, a + bias(gate, ids[pair], row + r), b + bias(up, ids[pair], row + r));
    }
}

#define DOWN_ROWS 4  // of w, by one block

// out[row] = sum over its experts of weight * down hidden. Grid: (rows of w / DOWN_ROWS, rows of x); a warp for every eighth expert.
extern "C" __global__ void __launch_bounds__(256, 3) expert_down(Stack down, Rows hidden, const int* ids, const int* where,
                                                                 const float* weights, int k, float* out, const int* rows) {
    after_previous();
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
        with_type(down.type, [&](auto q) { dot<decltype(q)>(w, from_row(hidden, row * k + j), sums); });
        if ((threadIdx.x & 31) == 0)
            for (int r = 0; r < DOWN_ROWS; r++) sums[r][0] += bias(down, ids[row * k + j], min(first + r, down.rows - 1));
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
    after_previous();
    const int row = blockIdx.x;
    if (row >= *rows) return;
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        float total = 0;
        for (int j = 0; j < k; j++)
            if (where[row * k + j] == IN_VRAM) total += weights[row * k + j] * y[((u64)row * k + j) * width + i];
        out[(u64)row * width + i] = total;
    }
}
