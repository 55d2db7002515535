// Work on rows of float32 (rows, width). `rows` points to the row count of this step: graphs outlive it.

// One block a row: sum = x + y (where there is a y), out = sum / sqrt(mean(sum ** 2) + eps) * weight. Width: a multiple of 4.
extern "C" __global__ void rms_norm(const float4* x, const float4* y, float4* sum, const float4* weight, float4* out, int width,
                                    float eps, const int* rows) {
    const int row = blockIdx.x, n = width / 4;
    if (row >= *rows) return;
    x += (u64)row * n, out += (u64)row * n;
    if (y) y += (u64)row * n, sum += (u64)row * n;
    float total = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        float4 v = x[i];
        if (y) {
            const float4 u = y[i];
            v.x += u.x, v.y += u.y, v.z += u.z, v.w += u.w;
            sum[i] = v;
        }
        total += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
    }
    const float scale = rsqrtf(block_reduce<false>(total) / width + eps);
    if (y) x = sum;
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        const float4 v = x[i], w = weight[i];
        out[i] = make_float4(v.x * scale * w.x, v.y * scale * w.y, v.z * scale * w.z, v.w * scale * w.w);
    }
}

extern "C" __global__ void add(const float* x, const float* y, float* out, int width, const int* rows) {
    const u64 n = (u64)*rows * width;
    for (u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (u64)gridDim.x * blockDim.x) out[i] = x[i] + y[i];
}

extern "C" __global__ void gated(const float* gate, const float* up, float* out, int width, const int* rows, int activation) {
    const u64 n = (u64)*rows * width;
    for (u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (u64)gridDim.x * blockDim.x) out[i] = activate(activation, gate[i], up[i]);
}

// One block a row: out[i] = x[index[i]].
extern "C" __global__ void gather(const float* x, const int* index, float* out, int width, const int* rows) {
    const int row = blockIdx.x;
    if (row >= *rows) return;
    for (int i = threadIdx.x; i < width; i += blockDim.x) out[(u64)row * width + i] = x[(u64)index[row] * width + i];
}

// One block a row: f16 for the tensor cores, scaled so that nothing overflows; `scale` takes a product back.
extern "C" __global__ void pack(const float* x, u16* out, float* scale, int width, const int* rows, int share) {
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
    const int row = blockIdx.x;
    if (row >= *rows) return;
    for (int i = threadIdx.x; i < half; i += blockDim.x) {
        const double angle = positions[row] * frequencies[i];
        out[row * half + i] = make_float2((float)cos(angle) * magnitude, (float)sin(angle) * magnitude);
    }
}
