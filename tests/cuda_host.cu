// In the place of what speaks to the tensor cores (matmul.cu): the same products, one after the other.
#define BN 64

struct Groups {
    const int4* tiles;
    const int* n_tiles;
    const int* order;
    int share;
};

extern "C" __global__ void matmul(Matrix m, const u64* experts, Groups groups, const u16* x, const float* scale, int width, const int* rows) {
    if (threadIdx.x || (groups.tiles && (int)blockIdx.y >= *groups.n_tiles)) return;
    int first = blockIdx.y * BN, count = min(BN, *rows - first);
    const u8* w = m.w;
    const float* bias = m.bias;
    if (groups.tiles) {
        const int4 tile = groups.tiles[blockIdx.y];
        first = tile.y, count = tile.z, w = (const u8*)experts[tile.x];
        if (bias) bias += (u64)tile.x * m.rows;
    }
    for (int r = blockIdx.x * 128; r < min((int)blockIdx.x * 128 + 128, m.rows); r++) {
        std::vector<float> values(width);
        for (int i = 0; i < width; i += 8)
            with_type(m.type, [&](auto q) { typedef decltype(q) Q; Q::unpack8(w + r * m.row_bytes + i / Q::BLOCK * Q::BYTES, i % Q::BLOCK / 8, &values[i]); });
        for (int c = first; c < first + count; c++) {
            const int pair = groups.tiles ? groups.order[c] : c, row = pair / groups.share;
            double sum = 0;
            for (int i = 0; i < width; i++) sum += (double)half_bits(to_half(values[i])) * half_bits(x[(u64)row * width + i]);
            m.out[(u64)pair * m.rows + r] = sum * scale[row] + (bias ? bias[r] : 0);
        }
    }
}
