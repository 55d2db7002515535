// The likeliest tokens of a row of logits, so that the others need not leave the card.
//
// Of disjoint groups, K have a maximum that is at least the K-th highest maximum: so all of the K likeliest tokens, and few others,
// reach that bound, and lie in groups that do.

#define LIST_GROUPS 1024
#define LIST 64           // K
#define LIST_ROOM 1024    // tokens that may reach the bound: more do only where very many are equal

// Unsigned numbers in the order of floats; what is no number comes before all.
__device__ __forceinline__ u32 rank_key(float x) {
    const u32 bits = __float_as_uint(x + 0.0f);  // one zero
    return x != x ? 0xffffffff : bits & 0x80000000 ? ~bits : bits | 0x80000000;
}

__device__ __forceinline__ int list_group(int vocab) { return (vocab + LIST_GROUPS - 1) / LIST_GROUPS; }

// The highest key of each group, 0 of one that is empty. Grid: (LIST_GROUPS / 8, rows); a warp a group.
extern "C" __global__ void group_maxima(const float* logits, u32* maxima, int vocab, const int* rows) {
    after_previous();
    const int row = blockIdx.y, group = blockIdx.x * 8 + threadIdx.x / 32, length = list_group(vocab);
    if (row >= *rows) return;
    logits += (u64)row * vocab;
    u32 top = 0;
    for (int i = group * length + (threadIdx.x & 31); i < min(vocab, (group + 1) * length); i += 32) top = max(top, rank_key(logits[i]));
    for (int step = 16; step; step >>= 1) top = max(top, __shfl_xor_sync(FULL, top, step));
    if ((threadIdx.x & 31) == 0) maxima[row * LIST_GROUPS + group] = top;
}

// The LIST likeliest tokens, falling, the lower id first on a tie, and `counts`: how many reached the bound; above LIST_ROOM the
// list is of no use. Grid: (rows); LIST_GROUPS threads.
extern "C" __global__ void shortlist(const float* logits, const u32* maxima, int vocab, int* ids, float* values, int* counts, const int* rows) {
    after_previous();
    __shared__ u32 tops[LIST_GROUPS], keys[LIST_ROOM];
    __shared__ int tokens[LIST_ROOM], count;
    const int row = blockIdx.x, lane = threadIdx.x & 31, length = list_group(vocab);
    if (row >= *rows) return;
    logits += (u64)row * vocab;
    const u32 own = tops[threadIdx.x] = maxima[row * LIST_GROUPS + threadIdx.x];
    if (threadIdx.x == 0) count = 0;
    u32 bound = 0;
    for (u32 bit = 0x80000000; bit >= 0x1000; bit >>= 1)  // a lower bound does too: a few tokens more
        if (__syncthreads_count(own >= (bound | bit)) >= LIST) bound |= bit;
    for (int group = threadIdx.x / 32; group < LIST_GROUPS; group += 32) {
        if (tops[group] < bound) continue;
        for (int i = group * length + lane; i < min(vocab, (group + 1) * length); i += 32) {
            const u32 key = rank_key(logits[i]);
            const int at = key >= bound ? atomicAdd(&count, 1) : LIST_ROOM;
            if (at < LIST_ROOM) keys[at] = key, tokens[at] = i;
        }
    }
    __syncthreads();
    if (threadIdx.x == 0) counts[row] = count;
    if (threadIdx.x >= min(count, LIST_ROOM)) return;
    const u32 key = keys[threadIdx.x];
    const int token = tokens[threadIdx.x];
    int place = 0;
    for (int i = 0; i < min(count, LIST_ROOM) && place < LIST; i++) place += keys[i] > key || (keys[i] == key && tokens[i] < token);
    if (place < LIST) ids[row * LIST + place] = token, values[row * LIST + place] = logits[token];
}
