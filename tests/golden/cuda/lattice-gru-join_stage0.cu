extern "C" __global__ void __launch_bounds__(256, 2) join_stage0_kernel(float* arena0_ptr, int* tables_ptr, int blocks, int step) {
  alignas(64) float total_s0_ptr[1];
  int steps_at = tables_ptr[0];
  int columns = tables_ptr[1];
  int index_at = tables_ptr[2];
  int n = tables_ptr[((steps_at + (step * columns)) + 1)];
  int first = tables_ptr[((steps_at + (step * columns)) + 2)];
  int pointer = tables_ptr[((steps_at + (step * columns)) + 3)];
  int out0 = tables_ptr[((steps_at + (step * columns)) + 4)];
  int base0 = tables_ptr[((steps_at + (step * columns)) + 5)];
  int stride0 = tables_ptr[((steps_at + (step * columns)) + 6)];
  int first_row = tables_ptr[(index_at + pointer)];
  int tiles = max(((n + 15) / 16), 1);
  for (int turn = 0; turn < ((((tiles + blocks) - ((int)blockIdx.x)) - 1) / blocks); ++turn) {
    int work = (((int)blockIdx.x) + (turn * blocks));
    int chunk = (work / tiles);
    int start = ((work - (chunk * tiles)) * 16);
    tvm_builtin_cuda_cta_sync();
    int instance = (start + (((int)threadIdx.x) / 16));
    int j = ((chunk * 16) + (((int)threadIdx.x) % 16));
    if ((instance < n) && (j < 8)) {
      int begin = tables_ptr[((index_at + pointer) + instance)];
      int begin_in_batch = (begin - first_row);
      int k = (tables_ptr[(((index_at + pointer) + instance) + 1)] - begin);
      total_s0_ptr[0] = 0x0p+0f/*0.000000e+00*/;
      for (int p = 0; p < k; ++p) {
        int condval;
        if (stride0 < 0) {
          condval = tables_ptr[((((index_at + base0) + first_row) + begin_in_batch) + p)];
        } else {
          condval = (base0 + ((first_row + (begin_in_batch + p)) * stride0));
        }
        int reduced_row = condval;
        total_s0_ptr[0] = (total_s0_ptr[0] + arena0_ptr[((reduced_row * 16) + j)]);
      }
      float s0 = total_s0_ptr[0];
      float y0 = (s0 / ((float)((int)((float)k))));
      arena0_ptr[(((out0 * 16) + (instance * 16)) + j)] = y0;
    }
    tvm_builtin_cuda_cta_sync();
  }
}
