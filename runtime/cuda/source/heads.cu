// Products of each head's part of a row with a matrix of its own.

#define HEAD_ROWS 32  // of a matrix, of one block

// out[row][head] = w[head] x[row][head], where each head's part is a row of x. Grid: (rows of a matrix / HEAD_ROWS, heads, rows of x); a warp for four rows of w.
extern "C" __global__ void __launch_bounds__(256) by_head(const u8* w, u64 row_bytes, int type, Rows x, float* out, int n_out,
                                                          const int* rows) {
    after_previous();
    const int head = blockIdx.y, heads = gridDim.y, row = blockIdx.z;
    const int first = blockIdx.x * HEAD_ROWS + (threadIdx.x >> 5) * 4;
    if (row >= *rows || first >= n_out) return;
    w += (u64)head * n_out * row_bytes;
    const u8* m[4];
    for (int r = 0; r < 4; r++) m[r] = w + min(first + r, n_out - 1) * row_bytes;
    float sums[4][1] = {};
    with_type(type, [&](auto q) { dot<decltype(q)>(m, from_row(x, row * heads + head), sums); });
    for (int r = 0; r < 4; r++) {
        const float sum = warp_sum(sums[r][0]);
        if ((threadIdx.x & 31) == 0 && first + r < n_out) out[((u64)row * heads + head) * n_out + first + r] = sum;
    }
}
