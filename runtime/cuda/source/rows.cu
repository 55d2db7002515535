// Work on rows of float32 (rows, width). `rows` points to the row count of this step: graphs outlive it.

// One block a row: sum = x + y (where there is a y), out = sum / sqrt(mean(sum ** 2) + eps) * weight. Width: a multiple of 8.
extern "C" __global__ void rms_norm(const float* x, const float* y, float* sum, const float* weight, float* out, Packing packing,
                                    int width, float eps, const int* rows) {
    after_previous();
    const int row = blockIdx.x;
    if (row >= *rows) return;
    x += (u64)row * width, out += (u64)row * width;
    if (y) y += (u64)row * width, sum += (u64)row * width;
    const bool once = width <= 8 * blockDim.x;  // then a thread has its values already
    float total = 0, v[8], w[8];
    load_values(weight, 8 * threadIdx.x, width, w);
    for (int i = 8 * threadIdx.x; i - 8 * (int)(threadIdx.x & 31) < width; i += 8 * blockDim.x) {  // whole warps
        load_values(x, i, width, v);
        if (y) {
            float u[8];
            load_values(y, i, width, u);
            for (int k = 0; k < 8; k++) v[k] += u[k];
            if (i < width) store_values(sum + i, v);
        }
        for (int k = 0; k < 8; k++) total += v[k] * v[k];
    }
    const float scale = 1.0f / sqrtf(block_reduce<false>(total) / width + eps);
    for (int i = 8 * threadIdx.x; i - 8 * (int)(threadIdx.x & 31) < width; i += 8 * blockDim.x) {
        if (!once) load_values(y ? sum : x, i, width, v), load_values(weight, i, width, w);
        for (int k = 0; k < 8; k++) v[k] = v[k] * scale * w[k];
        if (i < width) store_values(out + i, v);
        pack_values(v, packing, row, i / CHUNK, width);
    }
}

extern "C" __global__ void add(const float* x, const float* y, float* out, int width, const int* rows) {
    after_previous();
    const u64 n = (u64)*rows * width;
    for (u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (u64)gridDim.x * blockDim.x) out[i] = x[i] + y[i];
}

extern "C" __global__ void gated(const float* gate, const float* up, float* out, int width, const int* rows, int activation) {
    after_previous();
    const u64 n = (u64)*rows * width;
    for (u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (u64)gridDim.x * blockDim.x) out[i] = activate(activation, gate[i], up[i]);
}

// One block a row: out[i] = x[index[i]].
extern "C" __global__ void gather(const float* x, const int* index, float* out, int width, const int* rows) {
    after_previous();
    const int row = blockIdx.x;
    if (row >= *rows) return;
    for (int i = threadIdx.x; i < width; i += blockDim.x) out[(u64)row * width + i] = x[(u64)index[row] * width + i];
}

// One block a row: f16 for the tensor cores, scaled so that nothing overflows; `scale` takes a product back.
extern "C" __global__ void pack(const float* x, u16* out, float* scale, int width, const int* rows, int share) {
    after_previous();
    const int row = blockIdx.x;
    if (row >= *rows * share) return;
    x += (u64)row * width, out += (u64)row * width;
    float top = 0;
    for (int i = threadIdx.x; i < width; i += blockDim.x) top = fmaxf(top, fabsf(x[i]));
    top = fmaxf(block_reduce<true>(top), 1e-30f);
    for (int i = threadIdx.x; i < width; i += blockDim.x) out[i] = to_half(x[i] * (256.0f / top));
    if (threadIdx.x == 0) scale[row] = top / 256.0f;
}

// cos and sin of every row's angles, (rows, half) float2; the product of position and frequency needs float64.
extern "C" __global__ void rotary_table(const int* positions, const double* frequencies, float2* out, int half, float magnitude,
                                        const int* rows) {
    after_previous();
    const int row = blockIdx.x;
    if (row >= *rows) return;
    for (int i = threadIdx.x; i < half; i += blockDim.x) {
        const double angle = positions[row] * frequencies[i];
        out[row * half + i] = make_float2((float)cos(angle) * magnitude, (float)sin(angle) * magnitude);
    }
}
