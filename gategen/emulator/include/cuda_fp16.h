// __half for the emulator; the arithmetic is in ../cuda.h.
#pragma once
using __half = ::gg::Half;
using half = ::gg::Half;
inline float __half2float(__half x) { return ::gg::half_value(x.raw); }
inline __half __float2half(float x) { return __half(x); }
inline __half __float2half_rn(float x) { return __half(x); }
inline __half __double2half(double x) { return __half(x); }
inline __half __ushort_as_half(unsigned short x) { return ::gg::bits<__half>(x); }
inline unsigned short __half_as_ushort(__half x) { return x.raw; }
inline int __hisnan(__half x) { return isnan(__half2float(x)); }
inline int __hisinf(__half x) { return isinf(__half2float(x)); }
struct __half_raw {
  unsigned short x;
  __half_raw() = default;
  __half_raw(__half h) : x(h.raw) {}
  operator __half() const { return __ushort_as_half(x); }
};
