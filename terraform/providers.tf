# The provider is configured here because aws_region is a variable of the first integration and an existing tfvars
# must apply as it is. The price: as a child module this configuration takes no count, for_each, depends_on or
# providers. Who needs those leaves this file out of the copy and configures the provider outside.

provider "aws" {
  region = var.aws_region
}
