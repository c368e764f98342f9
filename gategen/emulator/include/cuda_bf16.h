// __nv_bfloat16 for the emulator; the arithmetic is in ../cuda.h.
#pragma once
using __nv_bfloat16 = ::gg::Bfloat16;
using nv_bfloat16 = ::gg::Bfloat16;
inline float __bfloat162float(__nv_bfloat16 x) { return ::gg::bfloat_value(x.raw); }
inline __nv_bfloat16 __float2bfloat16(float x) { return __nv_bfloat16(x); }
inline __nv_bfloat16 __float2bfloat16_rn(float x) { return __nv_bfloat16(x); }
inline __nv_bfloat16 __double2bfloat16(double x) { return __nv_bfloat16(x); }
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short x) { return ::gg::bits<__nv_bfloat16>(x); }
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 x) { return x.raw; }
inline int __hisnan(__nv_bfloat16 x) { return isnan(__bfloat162float(x)); }
inline int __hisinf(__nv_bfloat16 x) { return isinf(__bfloat162float(x)); }
