extern "C" __global__ void __launch_bounds__(256) edbatch_gradient_sums_kernel(float* out_ptr, float* rows_ptr, int* tables_ptr, int blocks, int count, int out_at, int rows_at, int starts_at, int stride, int width) {
  alignas(64) float total_ptr[1];
  int place = ((((int)blockIdx.x) * 256) + ((int)threadIdx.x));
  if (place < (count * width)) {
    int number = (place / width);
    int column = (place % width);
    int begin = tables_ptr[(starts_at + number)];
    total_ptr[0] = 0x0p+0f/*0.000000e+00*/;
    for (int i = 0; i < (tables_ptr[((starts_at + number) + 1)] - begin); ++i) {
      total_ptr[0] = (total_ptr[0] + rows_ptr[(tables_ptr[((i + rows_at) + begin)] + column)]);
    }
    out_ptr[((out_at + (number * stride)) + column)] = total_ptr[0];
  }
  tvm_builtin_cuda_cta_sync();
}
