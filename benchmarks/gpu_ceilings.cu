// What a device can do at best, for benchmarks/gpu_ceilings.py: a launch of nothing, and a barrier between the
// blocks of a group.
//
// A grid is (1, blocks of a group, groups). `arrived` has a counter for each group, 32 entries apart so that no
// two share a line of the cache; it only grows, and is 0 when a kernel starts.

// Waits until the blocks of the group have come here `goal` times together.
__device__ inline void group_barrier(unsigned* arrived, const unsigned goal) {
    __syncthreads();
    if (threadIdx.x == 0) {
        __nv_atomic_fetch_add(arrived, 1u, __NV_ATOMIC_RELEASE, __NV_THREAD_SCOPE_DEVICE);
        while (int(__nv_atomic_load_n(arrived, __NV_ATOMIC_ACQUIRE, __NV_THREAD_SCOPE_DEVICE) - goal) < 0) {}
    }
    __syncthreads();
}

extern "C" __global__ void nothing() {}

// So many barriers of every group.
extern "C" __global__ void barriers(const unsigned rounds, unsigned* arrived) {
    for (unsigned round = 1; round <= rounds; round++) {
        group_barrier(arrived + 32 * blockIdx.z, round * gridDim.y);
    }
}

// The same, and whether they hold: each block says in which round it is, and looks what its neighbour said.
extern "C" __global__ void checked_barriers(
        const unsigned rounds, unsigned* arrived, unsigned* said, unsigned* wrong) {
    unsigned* own = said + blockIdx.z * gridDim.y;
    for (unsigned round = 1; round <= rounds; round++) {
        if (threadIdx.x == 0) own[blockIdx.y] = round;
        group_barrier(arrived + 32 * blockIdx.z, (2 * round - 1) * gridDim.y);
        if (threadIdx.x == 0 && own[(blockIdx.y + 1) % gridDim.y] != round) atomicAdd(wrong, 1u);
        group_barrier(arrived + 32 * blockIdx.z, 2 * round * gridDim.y);
    }
}
