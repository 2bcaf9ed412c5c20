from flowcore_flux.executor import FluxExecutor as FluxExecutor
