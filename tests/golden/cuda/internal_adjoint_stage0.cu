extern "C" __global__ void __launch_bounds__(256, 2) internal_adjoint_stage0_kernel(float* arena0_ptr, float* scratch_internal_adjoint_0_ptr, float* scratch_internal_adjoint_1_ptr, float* scratch_internal_adjoint_2_ptr, int* tables_ptr, int blocks, int step) {
  __shared__ alignas(64) int rows_ptr[96];
  int steps_at = tables_ptr[0];
  int columns = tables_ptr[1];
  int index_at = tables_ptr[2];
  int n = tables_ptr[((steps_at + (step * columns)) + 1)];
  int first = tables_ptr[((steps_at + (step * columns)) + 2)];
  int pointer = tables_ptr[((steps_at + (step * columns)) + 3)];
  int out0 = tables_ptr[((steps_at + (step * columns)) + 4)];
  int out1 = tables_ptr[((steps_at + (step * columns)) + 5)];
  int out2 = tables_ptr[((steps_at + (step * columns)) + 6)];
  int out3 = tables_ptr[((steps_at + (step * columns)) + 7)];
  int base0 = tables_ptr[((steps_at + (step * columns)) + 9)];
  int stride0 = tables_ptr[((steps_at + (step * columns)) + 10)];
  int base1 = tables_ptr[((steps_at + (step * columns)) + 11)];
  int stride1 = tables_ptr[((steps_at + (step * columns)) + 12)];
  int base2 = tables_ptr[((steps_at + (step * columns)) + 13)];
  int stride2 = tables_ptr[((steps_at + (step * columns)) + 14)];
  int base3 = tables_ptr[((steps_at + (step * columns)) + 15)];
  int stride3 = tables_ptr[((steps_at + (step * columns)) + 16)];
  int base4 = tables_ptr[((steps_at + (step * columns)) + 17)];
  int stride4 = tables_ptr[((steps_at + (step * columns)) + 18)];
  int base5 = tables_ptr[((steps_at + (step * columns)) + 19)];
  int stride5 = tables_ptr[((steps_at + (step * columns)) + 20)];
  int tiles = max(((n + 15) / 16), 1);
  for (int turn = 0; turn < ((((tiles + blocks) - ((int)blockIdx.x)) - 1) / blocks); ++turn) {
    int work = (((int)blockIdx.x) + (turn * blocks));
    int chunk = (work / tiles);
    int start = ((work - (chunk * tiles)) * 16);
    if (((int)threadIdx.x) < 16) {
      int position = min((start + ((int)threadIdx.x)), (n - 1));
      int condval;
      if (stride0 < 0) {
        condval = tables_ptr[((index_at + base0) + position)];
      } else {
        condval = (base0 + (position * stride0));
      }
      rows_ptr[((int)threadIdx.x)] = condval;
      int condval_1;
      if (stride1 < 0) {
        condval_1 = tables_ptr[((index_at + base1) + position)];
      } else {
        condval_1 = (base1 + (position * stride1));
      }
      rows_ptr[(((int)threadIdx.x) + 16)] = condval_1;
      int condval_2;
      if (stride2 < 0) {
        condval_2 = tables_ptr[((index_at + base2) + position)];
      } else {
        condval_2 = (base2 + (position * stride2));
      }
      rows_ptr[(((int)threadIdx.x) + 32)] = condval_2;
      int condval_3;
      if (stride3 < 0) {
        condval_3 = tables_ptr[((index_at + base3) + position)];
      } else {
        condval_3 = (base3 + (position * stride3));
      }
      rows_ptr[(((int)threadIdx.x) + 48)] = condval_3;
      int condval_4;
      if (stride4 < 0) {
        condval_4 = tables_ptr[((index_at + base4) + position)];
      } else {
        condval_4 = (base4 + (position * stride4));
      }
      rows_ptr[(((int)threadIdx.x) + 64)] = condval_4;
      int condval_5;
      if (stride5 < 0) {
        condval_5 = tables_ptr[((index_at + base5) + position)];
      } else {
        condval_5 = (base5 + (position * stride5));
      }
      rows_ptr[(((int)threadIdx.x) + 80)] = condval_5;
    }
    tvm_builtin_cuda_cta_sync();
    int instance = (start + (((int)threadIdx.x) / 16));
    int j = ((chunk * 16) + (((int)threadIdx.x) % 16));
    if ((instance < n) && (j < 8)) {
      float y0 = tanhf(arena0_ptr[((rows_ptr[((((int)threadIdx.x) / 16) + 16)] * 16) + j)]);
      float y1 = (arena0_ptr[((rows_ptr[(((int)threadIdx.x) / 16)] * 16) + j)] * y0);
      float y2 = (0x1p+0f/*1.000000e+00*/ + (arena0_ptr[((rows_ptr[((((int)threadIdx.x) / 16) + 32)] * 16) + j)] * -0x1p+0f/*-1.000000e+00*/));
      float y3 = (arena0_ptr[((rows_ptr[((((int)threadIdx.x) / 16) + 32)] * 16) + j)] * y2);
      float y4 = (y1 * y3);
      float y5 = (arena0_ptr[((rows_ptr[(((int)threadIdx.x) / 16)] * 16) + j)] * arena0_ptr[((rows_ptr[((((int)threadIdx.x) / 16) + 32)] * 16) + j)]);
      float y6 = (y0 * y0);
      float y7 = (0x1p+0f/*1.000000e+00*/ + (y6 * -0x1p+0f/*-1.000000e+00*/));
      float y8 = (y5 * y7);
      float y9 = (arena0_ptr[((rows_ptr[((((int)threadIdx.x) / 16) + 48)] * 16) + j)] + y8);
      float y10 = (y9 * arena0_ptr[((rows_ptr[((((int)threadIdx.x) / 16) + 64)] * 16) + j)]);
      float y11 = (arena0_ptr[((rows_ptr[((((int)threadIdx.x) / 16) + 80)] * 16) + j)] * arena0_ptr[((rows_ptr[((((int)threadIdx.x) / 16) + 80)] * 16) + j)]);
      float y12 = (0x1p+0f/*1.000000e+00*/ + (y11 * -0x1p+0f/*-1.000000e+00*/));
      float y13 = (y10 * y12);
      float y14 = (y9 * arena0_ptr[((rows_ptr[((((int)threadIdx.x) / 16) + 80)] * 16) + j)]);
      float y15 = (0x1p+0f/*1.000000e+00*/ + (arena0_ptr[((rows_ptr[((((int)threadIdx.x) / 16) + 64)] * 16) + j)] * -0x1p+0f/*-1.000000e+00*/));
      float y16 = (arena0_ptr[((rows_ptr[((((int)threadIdx.x) / 16) + 64)] * 16) + j)] * y15);
      float y17 = (y14 * y16);
      arena0_ptr[(((out0 * 16) + (instance * 16)) + j)] = y4;
      arena0_ptr[(((out1 * 16) + (instance * 16)) + j)] = y13;
      arena0_ptr[(((out2 * 16) + (instance * 16)) + j)] = y17;
      arena0_ptr[(((out3 * 16) + (instance * 16)) + j)] = y9;
      scratch_internal_adjoint_0_ptr[((instance * 16) + j)] = y4;
      scratch_internal_adjoint_1_ptr[((instance * 16) + j)] = y13;
      scratch_internal_adjoint_2_ptr[((instance * 16) + j)] = y17;
    }
    tvm_builtin_cuda_cta_sync();
  }
}
