extern "C" __global__ void __launch_bounds__(256, 2) spell_kernel(float* arena0_ptr, float* arena1_ptr, int* tables_ptr, int blocks, int step) {
  int steps_at = tables_ptr[0];
  int columns = tables_ptr[1];
  int index_at = tables_ptr[2];
  int n = tables_ptr[((steps_at + (step * columns)) + 1)];
  for (int turn = 0; turn < ((((n + blocks) - ((int)blockIdx.x)) - 1) / blocks); ++turn) {
    int instance = (((int)blockIdx.x) + (turn * blocks));
    int base = tables_ptr[((steps_at + (step * columns)) + 5)];
    int stride = tables_ptr[((steps_at + (step * columns)) + 6)];
    int condval;
    if (stride < 0) {
      condval = tables_ptr[((index_at + base) + instance)];
    } else {
      condval = (base + (instance * stride));
    }
    int row = condval;
    int base_1 = tables_ptr[((steps_at + (step * columns)) + 7)];
    int stride_1 = tables_ptr[((steps_at + (step * columns)) + 8)];
    int condval_1;
    if (stride_1 < 0) {
      condval_1 = tables_ptr[((index_at + base_1) + instance)];
    } else {
      condval_1 = (base_1 + (instance * stride_1));
    }
    int row_1 = condval_1;
    int row_2 = (tables_ptr[((steps_at + (step * columns)) + 4)] + instance);
    int extent = 8;
    for (int turn_1 = 0; turn_1 < ((extent + 255) / 256); ++turn_1) {
      int at = ((turn_1 * 256) + ((int)threadIdx.x));
      if (at < extent) {
        float condval_2;
        if (4 <= at) {
          condval_2 = arena0_ptr[((row_1 * 16) + ((int)(((int64_t)at) - (int64_t)4)))];
        } else {
          condval_2 = arena0_ptr[((row * 16) + at)];
        }
        arena1_ptr[((row_2 * 16) + at)] = condval_2;
      }
    }
    tvm_builtin_cuda_cta_sync();
  }
}
