extern "C" __global__ void __launch_bounds__(256, 2) internal_stage0_kernel(float* arena0_ptr, float* arena1_ptr, float* scratch_internal_0_ptr, float* scratch_internal_1_ptr, int* tables_ptr, int blocks, int step) {
  alignas(64) float acc_ptr[2];
  int steps_at = tables_ptr[0];
  int columns = tables_ptr[1];
  int index_at = tables_ptr[2];
  int n = tables_ptr[((steps_at + (step * columns)) + 1)];
  int first = tables_ptr[((steps_at + (step * columns)) + 2)];
  int pointer = tables_ptr[((steps_at + (step * columns)) + 3)];
  int base2 = tables_ptr[((steps_at + (step * columns)) + 10)];
  int stride2 = tables_ptr[((steps_at + (step * columns)) + 11)];
  int base1 = tables_ptr[((steps_at + (step * columns)) + 8)];
  int stride1 = tables_ptr[((steps_at + (step * columns)) + 9)];
  int base0 = tables_ptr[((steps_at + (step * columns)) + 6)];
  int stride0 = tables_ptr[((steps_at + (step * columns)) + 7)];
  int base3 = tables_ptr[((steps_at + (step * columns)) + 12)];
  int stride3 = tables_ptr[((steps_at + (step * columns)) + 13)];
  for (int turn = 0; turn < ((((n + blocks) - ((int)blockIdx.x)) - 1) / blocks); ++turn) {
    int work = (((int)blockIdx.x) + (turn * blocks));
    int instance = work;
    int piece_of_instance = (work - instance);
    int condval;
    if (stride2 < 0) {
      condval = tables_ptr[((index_at + base2) + instance)];
    } else {
      condval = (base2 + (instance * stride2));
    }
    int row = condval;
    int condval_1;
    if (stride1 < 0) {
      condval_1 = tables_ptr[((index_at + base1) + instance)];
    } else {
      condval_1 = (base1 + (instance * stride1));
    }
    int row_1 = condval_1;
    int condval_2;
    if (stride0 < 0) {
      condval_2 = tables_ptr[((index_at + base0) + instance)];
    } else {
      condval_2 = (base0 + (instance * stride0));
    }
    int row_2 = condval_2;
    int condval_3;
    if (stride3 < 0) {
      condval_3 = tables_ptr[((index_at + base3) + instance)];
    } else {
      condval_3 = (base3 + (instance * stride3));
    }
    int row_3 = condval_3;
    int element = ((piece_of_instance * 256) + ((int)threadIdx.x));
    if (element < 8) {
      int i = (element / 8);
      int j = (element % 8);
      acc_ptr[0] = 0x0p+0f/*0.000000e+00*/;
      for (int k = 0; k < 8; ++k) {
        acc_ptr[0] = (acc_ptr[0] + (arena0_ptr[((row * 16) + k)] * arena1_ptr[(((row_1 * 64) + (j * 8)) + k)]));
      }
      acc_ptr[1] = 0x0p+0f/*0.000000e+00*/;
      for (int k_1 = 0; k_1 < 8; ++k_1) {
        acc_ptr[1] = (acc_ptr[1] + (arena0_ptr[((row_2 * 16) + k_1)] * arena1_ptr[(((row_3 * 64) + (j * 8)) + k_1)]));
      }
      scratch_internal_0_ptr[((instance * 16) + j)] = acc_ptr[0];
      scratch_internal_1_ptr[((instance * 16) + j)] = acc_ptr[1];
    }
    tvm_builtin_cuda_cta_sync();
  }
}
