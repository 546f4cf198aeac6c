extern "C" __global__ void __launch_bounds__(256, 2) readout_stage0_kernel(float* arena0_ptr, float* arena1_ptr, float* packed_readout_stage0_ptr, int* tables_ptr, int blocks, int step) {
  __shared__ alignas(64) int rows_ptr[64];
  __shared__ alignas(64) float pool_ptr[7728];
  alignas(64) float acc_ptr[4];
  int steps_at = tables_ptr[0];
  int columns = tables_ptr[1];
  int index_at = tables_ptr[2];
  int n = tables_ptr[((steps_at + (step * columns)) + 1)];
  int first = tables_ptr[((steps_at + (step * columns)) + 2)];
  int pointer = tables_ptr[((steps_at + (step * columns)) + 3)];
  int out0 = tables_ptr[((steps_at + (step * columns)) + 4)];
  int base0 = tables_ptr[((steps_at + (step * columns)) + 5)];
  int stride0 = tables_ptr[((steps_at + (step * columns)) + 6)];
  int tiles = max(((n + 63) / 64), 1);
  for (int turn = 0; turn < (((((tiles * 16) + blocks) - ((int)blockIdx.x)) - 1) / blocks); ++turn) {
    int work = (((int)blockIdx.x) + (turn * blocks));
    int chunk = (work / tiles);
    int start = ((work - (chunk * tiles)) * 64);
    if (((int)threadIdx.x) < 64) {
      int position = min((start + ((int)threadIdx.x)), (n - 1));
      int condval;
      if (stride0 < 0) {
        condval = tables_ptr[((index_at + base0) + position)];
      } else {
        condval = (base0 + (position * stride0));
      }
      rows_ptr[((int)threadIdx.x)] = condval;
    }
    #pragma unroll
    for (int i = 0; i < 4; ++i) {
      acc_ptr[i] = 0x0p+0f/*0.000000e+00*/;
    }
    tvm_builtin_cuda_cta_sync();
    int to_rows = 0;
    #pragma unroll
    for (int turn_1 = 0; turn_1 < 2; ++turn_1) {
      int piece = ((turn_1 * 256) + ((int)threadIdx.x));
      int row = (piece / 8);
      int k = ((piece % 8) * 4);
      edbatch_copy_16((&(pool_ptr[(((row * 36) + to_rows) + k)])), (&(arena0_ptr[((rows_ptr[row] * 32) + k)])));
    }
    int to_weights = 6912;
    #pragma unroll
    for (int turn_2 = 0; turn_2 < 1; ++turn_2) {
      int piece_1 = ((turn_2 * 256) + ((int)threadIdx.x));
      if (piece_1 < 64) {
        int part = (piece_1 / 32);
        int q = ((piece_1 % 32) * 4);
        edbatch_copy_16((&(pool_ptr[(((part * 136) + to_weights) + q)])), (&(packed_readout_stage0_ptr[(((chunk * 272) + (part * 136)) + q)])));
      }
    }
    edbatch_commit();
    edbatch_commit();
    edbatch_wait_1();
    tvm_builtin_cuda_cta_sync();
    for (int depth = 0; depth < 1; ++depth) {
      edbatch_commit();
      int warp = (((int)threadIdx.x) / 32);
      int band = ((warp / 2) % 4);
      int side = (warp % 2);
      int group = (warp / 8);
      int rows_at = (((depth % 3) * 2304) + (band * 576));
      int weights_at = ((6912 + ((depth % 3) * 272)) + (side * 136));
      for (int turn_3 = 0; turn_3 < 2; ++turn_3) {
        int block_of_k = (turn_3 + group);
        int lane = (((int)threadIdx.x) % 32);
        uint a0 = edbatch_word_bfloat16((&(pool_ptr[(((((lane / 4) * 36) + (block_of_k * 16)) + ((lane % 4) * 2)) + rows_at)])));
        uint a1 = edbatch_word_bfloat16((&(pool_ptr[((((((lane / 4) * 36) + (block_of_k * 16)) + ((lane % 4) * 2)) + rows_at) + 288)])));
        uint a2 = edbatch_word_bfloat16((&(pool_ptr[((((((lane / 4) * 36) + (block_of_k * 16)) + ((lane % 4) * 2)) + rows_at) + 8)])));
        uint a3 = edbatch_word_bfloat16((&(pool_ptr[((((((lane / 4) * 36) + (block_of_k * 16)) + ((lane % 4) * 2)) + rows_at) + 296)])));
          float v_ = pool_ptr[((((block_of_k * 64) + ((lane % 4) * 8)) + (lane / 4)) + weights_at)];
        uint b = (*(uint *)(&(v_)));
          float v__1 = pool_ptr[(((((block_of_k * 64) + ((lane % 4) * 8)) + (lane / 4)) + weights_at) + 32)];
        uint b_1 = (*(uint *)(&(v__1)));
        edbatch_multiply_bfloat16((&(acc_ptr[0])), a0, a1, a2, a3, b, b_1);
      }
      edbatch_wait_1();
      tvm_builtin_cuda_cta_sync();
    }
    int warp_1 = (((int)threadIdx.x) / 32);
    int band_1 = ((warp_1 / 2) % 4);
    int side_1 = (warp_1 % 2);
    int group_1 = (warp_1 / 8);
    int lane_1 = (((int)threadIdx.x) % 32);
    #pragma unroll
    for (int e = 0; e < 4; ++e) {
      int row_1 = (((band_1 * 16) + (lane_1 / 4)) + (8 * (e / 2)));
      int column = (((side_1 * 8) + (2 * (lane_1 % 4))) + (e % 2));
      int instance = (start + row_1);
      int j = ((chunk * 16) + column);
      if ((instance < n) && (j < 256)) {
        float y0 = (acc_ptr[e] + packed_readout_stage0_ptr[((((j / 8) * 136) + (j % 8)) + 128)]);
        arena1_ptr[(((out0 * 256) + (instance * 256)) + j)] = y0;
      }
    }
    tvm_builtin_cuda_cta_sync();
  }
}
