// A CUDA device on the memory of the host, for the real CuPy: the driver (libcuda.so.1), what CuPy uses of the runtime,
// and with -DBLAS of cuBLAS (libcublas.so). Kernels are libraries that gategen.emulator has compiled. There are two
// devices, so that a launch on the wrong one is noticed. Every operation on a device is written to a log.
//
// CuPy carries the runtime within itself; device.py makes its functions jump to those of the name on_host_cuda...
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#define API extern "C" __attribute__((visibility("default")))

#ifdef BLAS

namespace {

void (*note)(const char*);
bool execute = true;

float from_half(uint16_t bits) {
  _Float16 value;
  memcpy(&value, &bits, 2);
  return static_cast<float>(value);
}
uint16_t to_half(float value) {
  const auto half = static_cast<_Float16>(value);
  uint16_t bits;
  memcpy(&bits, &half, 2);
  return bits;
}
float from_bfloat(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  memcpy(&value, &wide, 4);
  return value;
}
uint16_t to_bfloat(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  if (value != value) return static_cast<uint16_t>(bits >> 16 | 64);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

enum Type { kFloat = 0, kDouble = 1, kHalf = 2, kBfloat = 14 };  // as cudaDataType

double read(const void* p, long i, int type) {
  switch (type) {
    case kFloat: return static_cast<const float*>(p)[i];
    case kDouble: return static_cast<const double*>(p)[i];
    case kHalf: return from_half(static_cast<const uint16_t*>(p)[i]);
    default: return from_bfloat(static_cast<const uint16_t*>(p)[i]);
  }
}
void write(void* p, long i, int type, double value) {
  switch (type) {
    case kFloat: static_cast<float*>(p)[i] = static_cast<float>(value); return;
    case kDouble: static_cast<double*>(p)[i] = value; return;
    case kHalf: static_cast<uint16_t*>(p)[i] = to_half(static_cast<float>(value)); return;
    default: static_cast<uint16_t*>(p)[i] = to_bfloat(static_cast<float>(value));
  }
}
bool known(int type) { return type == kFloat || type == kDouble || type == kHalf || type == kBfloat; }

}  // namespace

#define STUB(name) \
  API int name() { return fprintf(stderr, "%s is not among what device.cpp has of cuBLAS\n", #name), 15; }

API void on_host_note_with(void (*function)(const char*)) { note = function; }
API void on_host_execute(int whether) { execute = whether; }

API int cublasCreate_v2(void** handle) { return *handle = &note, 0; }
API int cublasDestroy_v2(void*) { return 0; }
API int cublasSetStream_v2(void*, void*) { return 0; }
API int cublasGetStream_v2(void*, void** stream) { return *stream = nullptr, 0; }
API int cublasSetMathMode(void*, int) { return 0; }
API int cublasGetMathMode(void*, int* mode) { return *mode = 0; }
API int cublasSetPointerMode_v2(void*, int) { return 0; }
API int cublasGetPointerMode_v2(void*, int* mode) { return *mode = 0; }
API int cublasGetVersion_v2(void*, int* version) { return *version = 130000, 0; }

// C = alpha A B + beta C by columns; sums are taken in double and rounded once.
API int cublasGemmEx(void*, int trans_a, int trans_b, int m, int n, int k, const void* alpha, const void* A, int a_type, int lda,
                     const void* B, int b_type, int ldb, const void* beta, void* C, int c_type, int ldc, int compute, int) {
  note("product");
  if (!execute) return 0;
  if (!known(a_type) || !known(b_type) || !known(c_type)) return 15;  // not supported
  if (lda < (trans_a ? k : m) || ldb < (trans_b ? n : k) || ldc < m) return 7;  // invalid value
  const int coefficients = compute == 70 ? kDouble : kFloat;  // CUBLAS_COMPUTE_64F
  if ((coefficients == kDouble) != (c_type == kDouble)) return 15;
  const double a = read(alpha, 0, coefficients), b = read(beta, 0, coefficients);
  for (long j = 0; j < n; ++j)
    for (long i = 0; i < m; ++i) {
      double sum = 0;
      for (long p = 0; p < k; ++p)
        sum += read(A, trans_a ? i * lda + p : p * lda + i, a_type) * read(B, trans_b ? p * ldb + j : j * ldb + p, b_type);
      write(C, j * ldc + i, c_type, a * sum + (b == 0 ? 0 : b * read(C, j * ldc + i, c_type)));
    }
  return 0;
}

#else  // driver and runtime

#include <dlfcn.h>

#include "runtime.h"  // gategen's emulator: the records of a launch

namespace {

constexpr int kDevices = 2, kProcessors = 132;
constexpr size_t kAlign = 512;

struct Memory { size_t bytes; int device; };
struct Function { const gg::Kernel* kernel; void (*launch)(const gg::Kernel*, const gg::Launch*, void**, gg::Report*); int shared = 48 * 1024; };
struct Module { void* library; std::map<std::string, Function> functions; };

int device = 0, order = 0;
bool execute = true;
unsigned long long seed = 0;
std::map<const char*, Memory> memories;
std::vector<std::string> operations;

void note(const std::string& operation) { operations.push_back(operation); }

// The device that an address is of; -1 for the host's. An empty array may begin where another one ends.
int owner(const void* address) {
  const auto p = static_cast<const char*>(address);
  auto found = memories.upper_bound(p);
  if (found == memories.begin()) return -1;
  --found;
  return p <= found->first + found->second.bytes ? found->second.device : -1;
}

// By a processor of 2048 threads, 65536 registers, of which a thread takes 128, and 228 KiB of shared memory.
unsigned held_at_once(unsigned threads, size_t shared) {
  const auto by_shared = static_cast<unsigned>(228 * 1024 / (shared + 1024));
  return std::min({2048 / threads, 65536 / (128 * threads), by_shared});
}

int launch(void* f, const unsigned (&grid)[3], const unsigned (&block)[3], unsigned shared, void** arguments, bool cooperative) {
  auto& function = *static_cast<Function*>(f);
  const gg::Kernel& kernel = *function.kernel;
  note(std::string("kernel ") + kernel.name);
  for (int i = 0; i < kernel.count; ++i) {
    const void* address = kernel.parameters[i].pointer ? *static_cast<void**>(arguments[i]) : nullptr;
    if (!address || owner(address) == device) continue;
    fprintf(stderr, "%s: parameter %d is not memory of device %d, which it runs on\n", kernel.name, i, device);
    return 700;  // illegal address
  }
  const unsigned blocks = grid[0] * grid[1] * grid[2];
  if (cooperative && blocks > kProcessors * held_at_once(block[0] * block[1] * block[2], shared)) return 720;  // too large
  if (static_cast<int>(shared) > function.shared) return 1;
  if (!execute) return 0;
  const gg::Launch setup{{grid[0], grid[1], grid[2]}, {block[0], block[1], block[2]}, shared, 256 * 1024, seed, order, cooperative ? blocks : 1};
  gg::Report report{};
  function.launch(&kernel, &setup, arguments, &report);
  if (report.status) fprintf(stderr, "%s: fault %d of the emulator\n", kernel.name, report.status);
  return report.status ? 719 : 0;  // launch failure
}

}  // namespace

// ---------------------------------------------------------------------------------- for device.py

API void on_host_note(const char* operation) { note(operation); }
API void on_host_execute(int whether) { execute = whether; }  // what benchmarks/host.py measures is the host
API void on_host_order(int kind, unsigned long long number) { order = kind, seed = number; }
API int on_host_count() { return static_cast<int>(operations.size()); }
API const char* on_host_operation(int i) { return operations[i].c_str(); }
API void on_host_forget() { operations.clear(); }
API void on_host_missing(const char* name) {
  fprintf(stderr, "%s is not among what tests/real_cupy/device.cpp has of the CUDA runtime\n", name);
  abort();
}

// ---------------------------------------------------------------------------------- the driver

API int cuInit(unsigned) { return 0; }
API int cuGetErrorName(int, const char** text) { return *text = "CUDA_ERROR", 0; }
API int cuGetErrorString(int, const char** text) { return *text = "an error of the device on the host, see stderr", 0; }
API int cuCtxGetCurrent(void** context) { return *context = &device, 0; }
API int cuCtxSetCurrent(void*) { return 0; }
API int cuCtxCreate_v2(void** context, unsigned, int) { return *context = &device, 0; }
API int cuCtxDestroy_v2(void*) { return 0; }
API int cuCtxGetDevice(int* d) { return *d = device, 0; }
API int cuDevicePrimaryCtxRelease_v2(int) { return 0; }
API int cuStreamGetCtx(void*, void** context) { return *context = &device, 0; }

API int cuModuleLoadData(void** result, const void* image) {  // the path of a library
  void* library = dlopen(static_cast<const char*>(image), RTLD_NOW | RTLD_LOCAL);
  if (!library) return fprintf(stderr, "%s\n", dlerror()), 200;
  auto module = new Module{library, {}};
  const auto run = reinterpret_cast<decltype(Function::launch)>(dlsym(library, "gg_launch"));
  for (auto* kernel = static_cast<const gg::Kernel*>(dlsym(library, "gg_kernels")); kernel->name; ++kernel)
    module->functions[kernel->name] = {kernel, run};
  return *result = module, 0;
}
API int cuModuleUnload(void*) { return 0; }
API int cuModuleGetFunction(void** function, void* module, const char* name) {
  auto& functions = static_cast<Module*>(module)->functions;
  const auto found = functions.find(name);
  if (found == functions.end()) return 500;
  return *function = &found->second, 0;
}
API int cuLaunchKernel(void* f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,
                       void*, void** arguments, void**) {
  return launch(f, {gx, gy, gz}, {bx, by, bz}, shared, arguments, false);
}
API int cuLaunchCooperativeKernel(void* f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                                  unsigned shared, void*, void** arguments) {
  return launch(f, {gx, gy, gz}, {bx, by, bz}, shared, arguments, true);
}
API int cuFuncGetAttribute(int* value, int attribute, void* f) {
  return *value = attribute == 8 ? static_cast<Function*>(f)->shared : 64, 0;  // dynamic shared memory; registers
}
API int cuFuncSetAttribute(void* f, int attribute, int value) {
  if (attribute == 8) static_cast<Function*>(f)->shared = value;
  return 0;
}
API int cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void*, int threads, size_t shared) {
  return *blocks = static_cast<int>(held_at_once(static_cast<unsigned>(threads), shared)), 0;
}
API int cuOccupancyMaxPotentialBlockSize(int* grid, int* block, void*, void*, size_t, int) {
  return *grid = kProcessors, *block = 512, 0;
}

// ---------------------------------------------------------------------------------- the runtime

constexpr int kSuccess = 0, kInvalidDevice = 101;
#define RT(name, ...) API int on_host_##name(__VA_ARGS__)

RT(cudaGetDevice, int* d) { return *d = device, kSuccess; }
RT(cudaSetDevice, int d) { return d < 0 || d >= kDevices ? kInvalidDevice : (device = d, kSuccess); }
RT(cudaGetDeviceCount, int* n) { return *n = kDevices, kSuccess; }
RT(cudaGetLastError) { return kSuccess; }
API const char* on_host_cudaGetErrorName(int) { return "cudaError"; }
API const char* on_host_cudaGetErrorString(int) { return "an error of the device on the host, see stderr"; }
RT(cudaRuntimeGetVersion, int* version) { return *version = 13000, kSuccess; }
RT(cudaDriverGetVersion, int* version) { return *version = 13000, kSuccess; }
RT(cudaDeviceGetAttribute, int* value, int attribute, int) {
  static const std::map<int, int> values = {
      {1, 1024}, {5, 2147483647}, {8, 49152},   // threads and shared memory of a block, the grid's x
      {10, 32}, {16, kProcessors}, {75, 9}, {76, 0},  // a warp, processors, compute capability
      {97, 227 * 1024}};  // shared memory that a block may ask for
  const auto found = values.find(attribute);
  return *value = found == values.end() ? 1 : found->second, kSuccess;
}
RT(cudaGetDeviceProperties, char* properties, int) {  // begins with 256 bytes of the name
  return strcpy(properties, "the real CuPy on the host"), kSuccess;
}
RT(cudaDeviceCanAccessPeer, int* can, int, int) { return *can = 0, kSuccess; }
RT(cudaDeviceSynchronize) { return note("wait"), kSuccess; }

RT(cudaMalloc, void** p, size_t bytes) {
  *p = aligned_alloc(kAlign, (bytes + kAlign) / kAlign * kAlign);
  memset(*p, 0xff, bytes);  // NaN in every floating-point type
  memories[static_cast<char*>(*p)] = {bytes, device};
  return kSuccess;
}
RT(cudaFree, void* p) { return memories.erase(static_cast<char*>(p)), free(p), kSuccess; }
RT(cudaHostAlloc, void** p, size_t bytes, unsigned) { return *p = malloc(bytes + 1), kSuccess; }
RT(cudaFreeHost, void* p) { return free(p), kSuccess; }
RT(cudaMemGetInfo, size_t* unused, size_t* total) { return *unused = *total = 1ull << 34, kSuccess; }

int copied(void* to, const void* from, size_t bytes) {
  const bool there = owner(to) >= 0, here = owner(from) >= 0;
  note(there && here ? "copy" : there ? "to the device" : "to the host");
  return memmove(to, from, bytes), kSuccess;
}
RT(cudaMemcpy, void* to, const void* from, size_t bytes, int) { return copied(to, from, bytes); }
RT(cudaMemcpyAsync, void* to, const void* from, size_t bytes, int, void*) { return copied(to, from, bytes); }
RT(cudaMemcpyPeerAsync, void* to, int, const void* from, int, size_t bytes, void*) { return copied(to, from, bytes); }
RT(cudaMemset, void* p, int value, size_t bytes) { return note("fill"), memset(p, value, bytes), kSuccess; }
RT(cudaMemsetAsync, void* p, int value, size_t bytes, void*) { return note("fill"), memset(p, value, bytes), kSuccess; }
struct Attributes { int type, device; const void *there, *here; };  // how cudaPointerAttributes begins
RT(cudaPointerGetAttributes, Attributes* attributes, const void* p) {
  const int found = owner(p);
  *attributes = {found < 0 ? 0 : 2, found, p, nullptr};  // unregistered, of the device
  return kSuccess;
}

int made(void** handle) { return *handle = malloc(1), kSuccess; }
RT(cudaStreamCreate, void** stream) { return made(stream); }
RT(cudaStreamCreateWithFlags, void** stream, unsigned) { return made(stream); }
RT(cudaStreamCreateWithPriority, void** stream, unsigned, int) { return made(stream); }
RT(cudaStreamDestroy, void* stream) { return free(stream), kSuccess; }
RT(cudaStreamSynchronize, void*) { return note("wait"), kSuccess; }
RT(cudaStreamQuery, void*) { return kSuccess; }
RT(cudaStreamWaitEvent, void*, void*, unsigned) { return kSuccess; }
RT(cudaStreamIsCapturing, void*, int* status) { return *status = 0, kSuccess; }
RT(cudaEventCreate, void** event) { return made(event); }
RT(cudaEventCreateWithFlags, void** event, unsigned) { return made(event); }
RT(cudaEventRecord, void*, void*) { return kSuccess; }
RT(cudaEventQuery, void*) { return kSuccess; }
RT(cudaEventSynchronize, void*) { return kSuccess; }
RT(cudaEventElapsedTime, float* milliseconds, void*, void*) { return *milliseconds = 1, kSuccess; }
RT(cudaEventDestroy, void* event) { return free(event), kSuccess; }

#endif
