"""One file per router; `deployments.service.routers` lists them."""
