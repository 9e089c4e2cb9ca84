// What a function is compiled for: host or device, and which vector instruction set.
#pragma once

// One source is compiled once per instruction set; the inline namespace keeps the copies apart, so that the linker
// never gives AVX-512 code of an inline function to a machine without it.
#ifndef GRADEX_ISA
#define GRADEX_ISA baseline
#endif

#define GRADEX_PRAGMA(text) _Pragma(#text)
#ifdef __CUDACC__
#define GRADEX_INLINE __host__ __device__ __forceinline__
#define GRADEX_UNROLL(times) GRADEX_PRAGMA(unroll times)
#elif defined(GRADEX_HOST_TWIN)
#define GRADEX_INLINE inline
#define GRADEX_UNROLL(times)
#else
#define GRADEX_INLINE inline __attribute__((always_inline))
#define GRADEX_UNROLL(times) GRADEX_PRAGMA(GCC unroll times)
#endif
