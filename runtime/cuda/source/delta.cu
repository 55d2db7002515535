// Layers that keep a state of each text; runtime/kernels/delta.py has the same for the CPU. Rows of one text stand together, and
// its state lies by its line. All rows of a step are one block's work, in their order: the next state needs the one before it.

#define TAPS 4  // tokens that the convolution sees, at the most

// A thread a channel. out = silu(the last `kernel` inputs, each times its weights); states: (lines, kernel - 1, channels).
extern "C" __global__ void delta_convolve(const float* x, float* out, int channels, int kernel, const float* weights, float* states,
                                          const int* positions, const int* lines, const int* rows) {
    after_previous();
    const int channel = blockIdx.x * blockDim.x + threadIdx.x, count = *rows, kept = kernel - 1, AHEAD = 8;
    if (channel >= channels) return;
    float w[TAPS] = {}, past[TAPS - 1] = {};  // the last ones count
    for (int t = 0; t < kernel; t++) w[TAPS - kernel + t] = weights[t * channels + channel];
    float* state = nullptr;
    int line = -1;
    for (int first = 0; first < count; first += AHEAD) {
        float values[AHEAD];
#pragma unroll
        for (int i = 0; i < AHEAD; i++) values[i] = first + i < count ? x[(u64)(first + i) * channels + channel] : 0;
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            const int row = first + i;
            if (row >= count) break;
            if (lines[row] != line) {
                for (int t = 0; state && t < kept; t++) state[t * channels] = past[TAPS - kernel + t];
                line = lines[row], state = states + (u64)line * kept * channels + channel;
                for (int t = 0; t < kept; t++) past[TAPS - kernel + t] = positions[row] ? state[t * channels] : 0;
            }
            float sum = w[TAPS - 1] * values[i];
#pragma unroll
            for (int t = 0; t < TAPS - 1; t++) sum += w[t] * past[t];
#pragma unroll
            for (int t = 0; t < TAPS - 2; t++) past[t] = past[t + 1];
            past[TAPS - 2] = values[i];
            out[(u64)row * channels + channel] = activate(SILU, sum, 1);
        }
    }
    for (int t = 0; state && t < kept; t++) state[t * channels] = past[TAPS - kernel + t];
}

struct DeltaShape {
    int key_heads, heads, grouped;
    float eps;
};

// A block a value head, a thread a column of its state, which it holds in registers; states: (lines, heads, SIZE, SIZE).
template <int SIZE>
__device__ __forceinline__ void delta_rows(const float* qkv, const float* z, const float* alpha, const float* beta, float* out,
                                           const DeltaShape& shape, const float* decay, const float* bias, const float* norm,
                                           float* states, const int* positions, const int* lines, int count) {
    __shared__ __align__(16) float query[SIZE], key[SIZE];
    const int head = blockIdx.x, column = threadIdx.x, channels = (2 * shape.key_heads + shape.heads) * SIZE;
    const int key_head = shape.grouped ? head / (shape.heads / shape.key_heads) : head % shape.key_heads;
    const int places[3] = {key_head, shape.key_heads + key_head, 2 * shape.key_heads + head};
    float s[SIZE], next[3] = {};
    float* state = nullptr;
    int line = -1;
    for (int i = 0; i < 3 && count; i++) next[i] = qkv[places[i] * SIZE + column];
    for (int row = 0; row < count; row++) {
        if (lines[row] != line) {
#pragma unroll
            for (int i = 0; i < SIZE; i++)
                if (state) state[i * SIZE] = s[i];
            line = lines[row], state = states + ((u64)line * shape.heads + head) * SIZE * SIZE + column;
#pragma unroll
            for (int i = 0; i < SIZE; i++) s[i] = positions[row] ? state[i * SIZE] : 0;
        }
        const float q = next[0], k = next[1], v = next[2];
        for (int i = 0; i < 3 && row + 1 < count; i++) next[i] = qkv[(u64)(row + 1) * channels + places[i] * SIZE + column];
        const u64 place = (u64)row * shape.heads + head;
        const float input = alpha[place] + bias[head], gate = z[place * SIZE + column];
        const float keep = expf(decay[head] * (input > 20 ? input : log1pf(expf(input)))), share = 1 / (1 + expf(-beta[place]));
        const float query_length = block_reduce<false>(q * q), key_length = block_reduce<false>(k * k);
        query[column] = q * rsqrtf((query_length + shape.eps) * SIZE), key[column] = k * rsqrtf(key_length + shape.eps);
        __syncthreads();
        float sums[4] = {};
#pragma unroll
        for (int i = 0; i < SIZE; i++) sums[i % 4] += s[i] * key[i];
        const float change = share * (v - keep * (sums[0] + sums[1] + (sums[2] + sums[3])));
        sums[0] = sums[1] = sums[2] = sums[3] = 0;
#pragma unroll
        for (int i = 0; i < SIZE; i++) s[i] = keep * s[i] + key[i] * change, sums[i % 4] += s[i] * query[i];
        const float result = sums[0] + sums[1] + (sums[2] + sums[3]);
        const float scale = rsqrtf(block_reduce<false>(result * result) / SIZE + shape.eps);
        out[place * SIZE + column] = activate(SILU, gate, result * scale * norm[column]);
    }
#pragma unroll
    for (int i = 0; i < SIZE; i++)
        if (state) state[i * SIZE] = s[i];
}

#define DELTA_RULE(SIZE)                                                                                                          \
    extern "C" __global__ void __launch_bounds__(SIZE) delta_rule_##SIZE(                                                          \
        const float* qkv, const float* z, const float* alpha, const float* beta, float* out, DeltaShape shape, const float* decay, \
        const float* bias, const float* norm, float* states, const int* positions, const int* lines, const int* rows) {            \
        after_previous();                                                                                                          \
        delta_rows<SIZE>(qkv, z, alpha, beta, out, shape, decay, bias, norm, states, positions, lines, *rows);                     \
    }

DELTA_RULE(32)
DELTA_RULE(64)
DELTA_RULE(128)
