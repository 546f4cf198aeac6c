extern "C" __global__ void __launch_bounds__(256) edbatch_gradient_product_kernel(float* left_ptr, float* out_ptr, float* right_ptr, int* tables_ptr, int across, int blocks, int count, int left_at, int lefts, int out_at, int piece, int right_at, int rights, int tiles) {
  alignas(64) float totals_ptr[4];
  __shared__ alignas(64) float left_rows_ptr[512];
  __shared__ alignas(64) float right_rows_ptr[512];
  int number = (((int)blockIdx.x) / tiles);
  int tile = (((int)blockIdx.x) % tiles);
  int first = (number * piece);
  int nodes = min(piece, (count - first));
  int left_column = ((tile / across) * 32);
  int right_column = ((tile % across) * 32);
  #pragma unroll
  for (int q = 0; q < 4; ++q) {
    totals_ptr[q] = 0x0p+0f/*0.000000e+00*/;
  }
  tvm_builtin_cuda_cta_sync();
  for (int depth = 0; depth < ((nodes + 15) / 16); ++depth) {
    #pragma unroll
    for (int u = 0; u < 2; ++u) {
      float condval;
      if ((((depth * 16) + (((u * 256) + ((int)threadIdx.x)) / 32)) < nodes) && ((left_column + (((u * 256) + ((int)threadIdx.x)) % 32)) < lefts)) {
        condval = left_ptr[((tables_ptr[((((depth * 16) + (((u * 256) + ((int)threadIdx.x)) / 32)) + left_at) + first)] + left_column) + (((u * 256) + ((int)threadIdx.x)) % 32))];
      } else {
        condval = 0x0p+0f/*0.000000e+00*/;
      }
      left_rows_ptr[((u * 256) + ((int)threadIdx.x))] = condval;
    }
    #pragma unroll
    for (int u_1 = 0; u_1 < 2; ++u_1) {
      float condval_1;
      if ((((depth * 16) + (((u_1 * 256) + ((int)threadIdx.x)) / 32)) < nodes) && ((right_column + (((u_1 * 256) + ((int)threadIdx.x)) % 32)) < rights)) {
        condval_1 = right_ptr[((tables_ptr[((((depth * 16) + (((u_1 * 256) + ((int)threadIdx.x)) / 32)) + right_at) + first)] + right_column) + (((u_1 * 256) + ((int)threadIdx.x)) % 32))];
      } else {
        condval_1 = 0x0p+0f/*0.000000e+00*/;
      }
      right_rows_ptr[((u_1 * 256) + ((int)threadIdx.x))] = condval_1;
    }
    tvm_builtin_cuda_cta_sync();
    for (int node = 0; node < 16; ++node) {
      #pragma unroll
      for (int a = 0; a < 2; ++a) {
        #pragma unroll
        for (int b = 0; b < 2; ++b) {
          totals_ptr[((a * 2) + b)] = (totals_ptr[((a * 2) + b)] + (left_rows_ptr[(((node * 32) + ((((int)threadIdx.x) / 16) * 2)) + a)] * right_rows_ptr[(((node * 32) + ((((int)threadIdx.x) % 16) * 2)) + b)]));
        }
      }
    }
    tvm_builtin_cuda_cta_sync();
  }
  #pragma unroll
  for (int a_1 = 0; a_1 < 2; ++a_1) {
    #pragma unroll
    for (int b_1 = 0; b_1 < 2; ++b_1) {
      int i = ((left_column + (2 * (((int)threadIdx.x) / 16))) + a_1);
      int j = ((right_column + (2 * (((int)threadIdx.x) % 16))) + b_1);
      if ((i < lefts) && (j < rights)) {
        out_ptr[((out_at + (((number * lefts) + i) * rights)) + j)] = totals_ptr[((a_1 * 2) + b_1)];
      }
    }
  }
  tvm_builtin_cuda_cta_sync();
}
