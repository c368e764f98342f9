// CUDA's names for a host C++17 compiler.  It is included in front of the unchanged text of a .cu file.
//
// What it offers is what NVRTC has without any header: the execution built-ins, mathematical functions with
// exactly NVRTC's overloads (float and double; an int argument is ambiguous in both), atomics, cache-hinted
// loads and stores, warp collectives, vector types.  It includes nothing, so a kernel that needs a standard
// header fails here as it does there.  cuda_fp16.h and cuda_bf16.h lie in include/.
//
// Not here: inline PTX, cooperative_groups.h, textures, clusters, __CUDA_ARCH__.  A kernel that must tell the
// two apart can test GATEGEN_EMULATOR.
#pragma once
#define GATEGEN_EMULATOR 1

typedef decltype(sizeof 0) size_t;
typedef decltype((char*)0 - (char*)0) ptrdiff_t;

#include "runtime.h"

namespace gg {

#ifdef GG_RACES  // races.h is told of these accesses by calls; the compiler is not to add its own
#define GG_RAW __attribute__((noinline, no_sanitize("thread")))
#else
#define GG_RAW
#endif
#define GG_CALLER __builtin_return_address(0)

// A loop that waits for another thread looks at one address again and again; the second look in a row lets others run.
GG_RAW inline void look(const void* address) {
  if (address == polled) wait_for_others(address);
  polled = address;
}

template <class T> struct Is { typedef T type; };  // keeps T from being deduced
template <class T> struct Double {};
template <> struct Double<double> { typedef double type; };
template <class T> using IfDouble = typename Double<T>::type;
template <class To, class From> inline To bits(From from) {
  static_assert(sizeof(To) == sizeof(From), "same size");
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}

}  // namespace gg

// ------------------------------------------------------------------------------------------ language

#define __global__
#define __device__
#define __host__
#define __constant__
#define __grid_constant__
#define __managed__
#define __launch_bounds__(...)
#define __maxnreg__(...)
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __align__(n) __attribute__((aligned(n)))
// Thread-local, because that is static inside a function, is one block of memory in the module (which the runtime
// fills with NaN), and works in templates.  `used` keeps the compiler from assuming that it starts as zero.
#define __shared__ thread_local __attribute__((used))

constexpr int warpSize = 32;

#define GG_VECTOR(T, name, bytes)                                                     \
  struct alignas(2 * bytes) name##2 { T x, y; };                                      \
  struct name##3 { T x, y, z; };                                                      \
  struct alignas(4 * bytes > 16 ? 16 : 4 * bytes) name##4 { T x, y, z, w; };          \
  inline name##2 make_##name##2(T x, T y) { return {x, y}; }                          \
  inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }                  \
  inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
GG_VECTOR(float, float, 4)
GG_VECTOR(double, double, 8)
GG_VECTOR(int, int, 4)
#undef GG_VECTOR
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint3 make_uint3(unsigned x, unsigned y, unsigned z) { return {x, y, z}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

extern "C" int printf(const char*, ...);

// ------------------------------------------------------------------------------------------ mathematics

#define GG_UNARY(name)             \
  extern "C" double name(double);  \
  extern "C" float name##f(float); \
  inline float name(float x) { return name##f(x); }
// A float with a double is ambiguous to NVRTC; g++ would choose one.
#define GG_BINARY(name)                                            \
  extern "C" double name(double, double);                          \
  extern "C" float name##f(float, float);                          \
  inline float name(float x, float y) { return name##f(x, y); }    \
  template <class T> gg::IfDouble<T> name(float, T) = delete;      \
  template <class T> gg::IfDouble<T> name(T, float) = delete;
GG_UNARY(exp) GG_UNARY(exp2) GG_UNARY(expm1) GG_UNARY(log) GG_UNARY(log2) GG_UNARY(log10) GG_UNARY(log1p)
GG_UNARY(sin) GG_UNARY(cos) GG_UNARY(tan) GG_UNARY(asin) GG_UNARY(acos) GG_UNARY(atan)
GG_UNARY(sinh) GG_UNARY(cosh) GG_UNARY(tanh) GG_UNARY(asinh) GG_UNARY(acosh) GG_UNARY(atanh)
GG_UNARY(sqrt) GG_UNARY(cbrt) GG_UNARY(erf) GG_UNARY(erfc) GG_UNARY(lgamma) GG_UNARY(tgamma)
GG_UNARY(floor) GG_UNARY(ceil) GG_UNARY(trunc) GG_UNARY(round) GG_UNARY(rint) GG_UNARY(nearbyint) GG_UNARY(fabs)
GG_BINARY(pow) GG_BINARY(fmod) GG_BINARY(remainder) GG_BINARY(atan2) GG_BINARY(hypot)
GG_BINARY(fmax) GG_BINARY(fmin) GG_BINARY(fdim) GG_BINARY(nextafter)
#undef GG_UNARY
#undef GG_BINARY
extern "C" double copysign(double, double);
extern "C" float copysignf(float, float);
inline float copysign(float x, float y) { return copysignf(x, y); }
inline double copysign(float x, double y) { return copysign(static_cast<double>(x), y); }
inline double copysign(double x, float y) { return copysign(x, static_cast<double>(y)); }
extern "C" double fma(double, double, double);
extern "C" float fmaf(float, float, float);
inline float fma(float x, float y, float z) { return fmaf(x, y, z); }
inline float pow(float x, int n) { return powf(x, static_cast<float>(n)); }
inline double pow(double x, int n) { return pow(x, static_cast<double>(n)); }

inline float rsqrtf(float x) { return 1 / sqrtf(x); }
inline float rsqrt(float x) { return rsqrtf(x); }
inline double rsqrt(double x) { return 1 / sqrt(x); }
inline float rcbrtf(float x) { return 1 / cbrtf(x); }
inline float exp10f(float x) { return powf(10.0f, x); }
inline float exp10(float x) { return exp10f(x); }
inline double exp10(double x) { return pow(10.0, x); }
inline double normcdf(double x) { return 0.5 * erfc(-x * 0.70710678118654752440); }
inline float normcdff(float x) { return static_cast<float>(normcdf(static_cast<double>(x))); }
inline float normcdf(float x) { return normcdff(x); }

inline int isnan(float x) { return __builtin_isnan(x); }
inline int isnan(double x) { return __builtin_isnan(x); }
inline int isinf(float x) { return __builtin_isinf(x) != 0; }
inline int isinf(double x) { return __builtin_isinf(x) != 0; }
inline int isfinite(float x) { return __builtin_isfinite(x); }
inline int isfinite(double x) { return __builtin_isfinite(x); }
inline int signbit(float x) { return __builtin_signbit(x) != 0; }
inline int signbit(double x) { return __builtin_signbit(x) != 0; }

extern "C" int abs(int) noexcept;
inline long long abs(long long x) { return x < 0 ? -x : x; }
inline float abs(float x) { return fabsf(x); }
inline double abs(double x) { return fabs(x); }

#define GG_EXTREMA(T, A, B)                                                                          \
  inline T max(A x, B y) { return static_cast<T>(x) < static_cast<T>(y) ? static_cast<T>(y) : static_cast<T>(x); } \
  inline T min(A x, B y) { return static_cast<T>(y) < static_cast<T>(x) ? static_cast<T>(y) : static_cast<T>(x); }
GG_EXTREMA(int, int, int)
GG_EXTREMA(unsigned, unsigned, unsigned)
GG_EXTREMA(unsigned, int, unsigned)
GG_EXTREMA(unsigned, unsigned, int)
GG_EXTREMA(long, long, long)
GG_EXTREMA(unsigned long, unsigned long, unsigned long)
GG_EXTREMA(long long, long long, long long)
GG_EXTREMA(unsigned long long, unsigned long long, unsigned long long)
#undef GG_EXTREMA
inline float max(float x, float y) { return fmaxf(x, y); }  // of a number and a NaN: the number, as fmax
inline float min(float x, float y) { return fminf(x, y); }
inline double max(double x, double y) { return fmax(x, y); }
inline double min(double x, double y) { return fmin(x, y); }
inline double max(float x, double y) { return fmax(static_cast<double>(x), y); }
inline double min(float x, double y) { return fmin(static_cast<double>(x), y); }
inline double max(double x, float y) { return fmax(x, static_cast<double>(y)); }
inline double min(double x, float y) { return fmin(x, static_cast<double>(y)); }

// CUDA's fast forms; here they are the accurate ones.
inline float __expf(float x) { return expf(x); }
inline float __exp10f(float x) { return exp10f(x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __sinf(float x) { return sinf(x); }
inline float __cosf(float x) { return cosf(x); }
inline float __tanhf(float x) { return tanhf(x); }
inline float __powf(float x, float y) { return powf(x, y); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __frcp_rn(float x) { return 1 / x; }
inline float __frsqrt_rn(float x) { return rsqrtf(x); }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
inline float __saturatef(float x) { return fminf(fmaxf(x, 0.0f), 1.0f); }

inline int __float_as_int(float x) { return gg::bits<int>(x); }
inline unsigned __float_as_uint(float x) { return gg::bits<unsigned>(x); }
inline float __int_as_float(int x) { return gg::bits<float>(x); }
inline float __uint_as_float(unsigned x) { return gg::bits<float>(x); }
inline long long __double_as_longlong(double x) { return gg::bits<long long>(x); }
inline double __longlong_as_double(long long x) { return gg::bits<double>(x); }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x ? __builtin_clz(static_cast<unsigned>(x)) : 32; }

// ------------------------------------------------------------------------------------------ memory

template <class T> inline T __ldg(const T* p) { return *p; }
template <class T> inline T __ldca(const T* p) { return *p; }
template <class T> inline T __ldcs(const T* p) { return *p; }
template <class T> inline T __ldcg(const T* p) {
  gg::look(p);
  if constexpr (__is_class(T)) {  // of 16 bits
    const unsigned short bits = *reinterpret_cast<const volatile unsigned short*>(p);
    T value;
    static_assert(sizeof value == sizeof bits, "a type of 16 bits");
    __builtin_memcpy(&value, &bits, sizeof bits);
    return value;
  } else {
    return *const_cast<const volatile T*>(p);
  }
}
template <class T> inline T __ldcv(const T* p) { gg::look(p); return *const_cast<const volatile T*>(p); }
template <class T> inline void __stwb(T* p, typename gg::Is<T>::type v) { *p = v; gg::note_progress(); }
template <class T> inline void __stcg(T* p, typename gg::Is<T>::type v) { *p = v; gg::note_progress(); }
template <class T> inline void __stcs(T* p, typename gg::Is<T>::type v) { *p = v; gg::note_progress(); }
template <class T> inline void __stwt(T* p, typename gg::Is<T>::type v) { *p = v; gg::note_progress(); }

// A loop of fences is waiting for someone.
inline void __threadfence() { gg::look(&gg::polled); gg::fence(gg::kScopeDevice); }
inline void __threadfence_block() { gg::look(&gg::polled); gg::fence(gg::kScopeBlock); }
inline void __threadfence_system() { gg::look(&gg::polled); gg::fence(gg::kScopeSystem); }
inline void __nanosleep(unsigned) { gg::wait_for_others(nullptr); }

// CUDA 12.8's built-in atomics have an order and a scope; those before are relaxed, on the device. Here everything is
// ordered, and only the search for races makes a difference. All blocks share one thread of the host, so a plain read
// and write is atomic.
enum { __NV_ATOMIC_RELAXED, __NV_ATOMIC_CONSUME, __NV_ATOMIC_ACQUIRE, __NV_ATOMIC_RELEASE, __NV_ATOMIC_ACQ_REL, __NV_ATOMIC_SEQ_CST };
enum { __NV_THREAD_SCOPE_THREAD, __NV_THREAD_SCOPE_BLOCK, __NV_THREAD_SCOPE_CLUSTER, __NV_THREAD_SCOPE_DEVICE, __NV_THREAD_SCOPE_SYSTEM };
namespace gg {
template <class T, class F> GG_RAW inline T modify(T* p, F change, const void* pc, int order = kRelaxed, int scope = kScopeDevice, bool loads = true) {
  look(p);
  let_blocks_look();
  atomic(p, sizeof *p, order, scope, loads, true, pc);
  const T old = *p, changed = change(old);
  if (__builtin_memcmp(&old, &changed, sizeof old) != 0) {
    *p = changed;
    polled = nullptr;
    note_progress();
  }
  return old;
}
}  // namespace gg
#define GG_ATOMIC(name, expression)                                              \
  template <class T> GG_RAW inline T name(T* p, typename gg::Is<T>::type v) {    \
    return gg::modify(p, [&](T old) -> T { return expression; }, GG_CALLER);     \
  }
GG_ATOMIC(atomicAdd, old + v)
GG_ATOMIC(atomicSub, old - v)
GG_ATOMIC(atomicExch, v)
GG_ATOMIC(atomicMax, old < v ? v : old)
GG_ATOMIC(atomicMin, v < old ? v : old)
GG_ATOMIC(atomicAnd, old & v)
GG_ATOMIC(atomicOr, old | v)
GG_ATOMIC(atomicXor, old ^ v)
#undef GG_ATOMIC
template <class T> GG_RAW inline T atomicCAS(T* p, typename gg::Is<T>::type expected, typename gg::Is<T>::type v) {
  return gg::modify(p, [&](T old) -> T { return old == expected ? v : old; }, GG_CALLER);
}

template <class T> GG_RAW inline T __nv_atomic_load_n(T* p, int order, int scope = gg::kScopeSystem) {
  gg::look(p);
  gg::atomic(p, sizeof *p, order, scope, true, false, GG_CALLER);
  return *const_cast<volatile T*>(p);
}
template <class T> GG_RAW inline void __nv_atomic_store_n(T* p, typename gg::Is<T>::type v, int order, int scope = gg::kScopeSystem) {
  gg::modify(p, [&](T) -> T { return v; }, GG_CALLER, order, scope, false);
}
template <class T> GG_RAW inline T __nv_atomic_fetch_add(T* p, typename gg::Is<T>::type v, int order, int scope = gg::kScopeSystem) {
  return gg::modify(p, [&](T old) -> T { return old + v; }, GG_CALLER, order, scope);
}
template <class T> GG_RAW inline void __nv_atomic_add(T* p, typename gg::Is<T>::type v, int order, int scope = gg::kScopeSystem) {
  gg::modify(p, [&](T old) -> T { return old + v; }, GG_CALLER, order, scope);
}

// ------------------------------------------------------------------------------------------ working together

inline void __syncthreads(int line = __builtin_LINE()) { gg::sync_block(line); }
inline void __syncwarp(unsigned mask = 0xffffffffu, int line = __builtin_LINE()) { gg::exchange(mask, 0, line, true); }

inline unsigned __ballot_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
  const gg::Word* votes = gg::exchange(mask, predicate != 0, line);
  unsigned ballot = 0;
  for (int i = 0; i < 32; ++i)
    if (mask >> i & 1) ballot |= static_cast<unsigned>(votes[i] == 1) << i;
  return ballot;
}
inline int __any_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
  return __ballot_sync(mask, predicate, line) != 0;
}
inline int __all_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
  return __ballot_sync(mask, !predicate, line) == 0;
}

namespace gg {
template <class T> inline T shuffle(unsigned mask, T value, int source, int line) {
  static_assert(sizeof(T) <= sizeof(Word), "a shuffle moves at most 8 bytes");
  Word word = 0;
  __builtin_memcpy(&word, &value, sizeof value);
  const Word* words = exchange(mask, word, line);
  T result;
  __builtin_memcpy(&result, &words[source & 31], sizeof result);
  return result;
}
}  // namespace gg
template <class T> inline T __shfl_sync(unsigned mask, T value, int source, int width = 32, int line = __builtin_LINE()) {
  const int first = static_cast<int>(gg::lane()) & ~(width - 1);
  return gg::shuffle(mask, value, first | (source & (width - 1)), line);
}
template <class T> inline T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32, int line = __builtin_LINE()) {
  const int self = static_cast<int>(gg::lane()), first = self & ~(width - 1), source = self - static_cast<int>(by);
  return gg::shuffle(mask, value, source < first ? self : source, line);
}
template <class T> inline T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32, int line = __builtin_LINE()) {
  const int self = static_cast<int>(gg::lane()), last = self | (width - 1), source = self + static_cast<int>(by);
  return gg::shuffle(mask, value, source > last ? self : source, line);
}
template <class T> inline T __shfl_xor_sync(unsigned mask, T value, int with, int width = 32, int line = __builtin_LINE()) {
  const int self = static_cast<int>(gg::lane()), last = self | (width - 1), source = self ^ with;
  return gg::shuffle(mask, value, source > last ? self : source, line);
}

// ------------------------------------------------------------------------------------------ half and bfloat16

namespace gg {

// Round the float's magnitude to `keep` explicit mantissa bits less, to nearest even, on its bits.
inline unsigned round_off(unsigned x, int bits) { return (x + (1u << (bits - 1)) - 1 + (x >> bits & 1)) >> bits; }

inline unsigned short half_from(float value) {
  const unsigned x = bits<unsigned>(value), sign = x >> 16 & 0x8000u, magnitude = x & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return 0x7fff;                                                 // NaN, as CUDA's
  if (magnitude >= 0x477ff000u) return static_cast<unsigned short>(sign | 0x7c00u);           // to infinity
  if (magnitude >= 0x38800000u) return static_cast<unsigned short>(sign | round_off(magnitude - 0x38000000u, 13));
  const float subnormal = bits<float>(magnitude) + 0.5f;  // 0.5 has the last place of half's subnormals, 2^-24
  return static_cast<unsigned short>(sign | (bits<unsigned>(subnormal) - 0x3f000000u));
}
inline float half_value(unsigned short h) {
  const unsigned sign = (h & 0x8000u) << 16, exponent = h >> 10 & 31u, mantissa = h & 0x3ffu;
  if (exponent == 31) return bits<float>(sign | 0x7f800000u | mantissa << 13);
  if (exponent) return bits<float>(sign | ((exponent + 112) << 23) | mantissa << 13);
  const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
  return sign ? -magnitude : magnitude;
}
inline unsigned short bfloat_from(float value) {
  const unsigned x = bits<unsigned>(value);
  if ((x & 0x7fffffffu) > 0x7f800000u) return 0x7fff;  // NaN, as CUDA's
  return static_cast<unsigned short>(round_off(x, 16));
}
inline float bfloat_value(unsigned short b) { return bits<float>(static_cast<unsigned>(b) << 16); }

// A double is rounded once: to odd in float first, so that the second rounding sees what was cut off.
inline float to_odd(double value) {
  const float nearest = static_cast<float>(value);
  const double back = static_cast<double>(nearest);
  if (back == value || value != value || __builtin_isinf(nearest)) return nearest;
  unsigned x = bits<unsigned>(nearest);
  if (x & 1) return nearest;
  const bool too_large = (back < 0 ? -back : back) > (value < 0 ? -value : value);
  return bits<float>(too_large ? x - 1 : x + 1);
}

// Arithmetic goes through float and rounds once, as CUDA's operators do.
#define GG_NARROW(Name, from, value)                                                                              \
  struct alignas(2) Name {                                                                                        \
    unsigned short raw;                                                                                           \
    Name() = default;                                                                                             \
    Name(float x) : raw(from(x)) {}                                                                               \
    Name(double x) : raw(from(to_odd(x))) {}                                                                      \
    Name(int x) : raw(from(to_odd(x))) {}                                                                         \
    Name(unsigned x) : raw(from(to_odd(x))) {}                                                                    \
    Name(long long x) : raw(from(to_odd(static_cast<double>(x)))) {}                                              \
    Name(unsigned long long x) : raw(from(to_odd(static_cast<double>(x)))) {}                                     \
    operator float() const { return value(raw); }                                                                 \
  };                                                                                                              \
  inline Name operator-(Name x) { x.raw ^= 0x8000u; return x; }                                                   \
  inline Name operator+(Name x, Name y) { return Name(static_cast<float>(x) + static_cast<float>(y)); }           \
  inline Name operator-(Name x, Name y) { return Name(static_cast<float>(x) - static_cast<float>(y)); }           \
  inline Name operator*(Name x, Name y) { return Name(static_cast<float>(x) * static_cast<float>(y)); }           \
  inline Name operator/(Name x, Name y) { return Name(static_cast<float>(x) / static_cast<float>(y)); }           \
  inline Name& operator+=(Name& x, Name y) { return x = x + y; }                                                  \
  inline Name& operator-=(Name& x, Name y) { return x = x - y; }                                                  \
  inline Name& operator*=(Name& x, Name y) { return x = x * y; }                                                  \
  inline Name& operator/=(Name& x, Name y) { return x = x / y; }                                                  \
  inline bool operator==(Name x, Name y) { return static_cast<float>(x) == static_cast<float>(y); }               \
  inline bool operator!=(Name x, Name y) { return static_cast<float>(x) != static_cast<float>(y); }               \
  inline bool operator<(Name x, Name y) { return static_cast<float>(x) < static_cast<float>(y); }                 \
  inline bool operator>(Name x, Name y) { return static_cast<float>(x) > static_cast<float>(y); }                 \
  inline bool operator<=(Name x, Name y) { return static_cast<float>(x) <= static_cast<float>(y); }               \
  inline bool operator>=(Name x, Name y) { return static_cast<float>(x) >= static_cast<float>(y); }
GG_NARROW(Half, half_from, half_value)
GG_NARROW(Bfloat16, bfloat_from, bfloat_value)
#undef GG_NARROW

// ------------------------------------------------------------------------------------------ kernels' signatures

// NumPy's letter for a kind of type: f floating point, e half, b bfloat16, i signed, u unsigned, ? bool, V other.
template <class T> struct Kind { static constexpr char value = 'V'; };
#define GG_KIND(T, letter) template <> struct Kind<T> { static constexpr char value = letter; };
GG_KIND(float, 'f') GG_KIND(double, 'f') GG_KIND(Half, 'e') GG_KIND(Bfloat16, 'b') GG_KIND(bool, '?')
GG_KIND(char, 'i') GG_KIND(signed char, 'i') GG_KIND(short, 'i') GG_KIND(int, 'i') GG_KIND(long, 'i') GG_KIND(long long, 'i')
GG_KIND(unsigned char, 'u') GG_KIND(unsigned short, 'u') GG_KIND(unsigned, 'u') GG_KIND(unsigned long, 'u')
GG_KIND(unsigned long long, 'u')
#undef GG_KIND

template <class T> struct Size { static constexpr int value = sizeof(T); };
template <> struct Size<void> { static constexpr int value = 0; };
template <class T> struct Plain { typedef T type; };
template <class T> struct Plain<const T> { typedef T type; };
template <class T> struct Plain<volatile T> { typedef T type; };
template <class T> struct Plain<const volatile T> { typedef T type; };
template <class T> constexpr Parameter describe(T*) {  // called with a null pointer to the parameter's type
  return {Kind<typename Plain<T>::type>::value, 0, Size<T>::value};
}
template <class T> constexpr Parameter describe(T**) {
  return {Kind<typename Plain<T>::type>::value, 1, Size<typename Plain<T>::type>::value};
}

template <int... I> struct Indices {};
template <int N, int... I> struct Count : Count<N - 1, N - 1, I...> {};
template <int... I> struct Count<0, I...> { typedef Indices<I...> type; };

template <auto F> struct Launcher;
template <class... A, void (*F)(A...)> struct Launcher<F> {
  static constexpr Parameter parameters[sizeof...(A) + 1] = {describe(static_cast<A*>(nullptr))..., {}};
  template <int... I> static void call(void** arguments, Indices<I...>) { F(*static_cast<A*>(arguments[I])...); }
  static void run(void** arguments) { call(arguments, typename Count<sizeof...(A)>::type()); }
  static constexpr Kernel kernel(const char* name) { return {name, run, sizeof...(A), parameters}; }
};

}  // namespace gg
