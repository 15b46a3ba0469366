"""Options of XLA for tests: a program runs a few times on few numbers, and compiles for longer.

Fusions through LLVM IR alone rather than through MLIR, one module rather than one for each core,
and machine code that is not optimized: a third of the time of a tiny model's step.
"""

XLA_FLAGS = " ".join(
    (
        "--xla_backend_optimization_level=0",
        "--xla_cpu_use_fusion_emitters=false",
        "--xla_cpu_parallel_codegen_split_count=1",
    )
)
