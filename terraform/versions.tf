# Terraform 1.11 is the first with write-only arguments, which keep Kong's token out of the state.

terraform {
  required_version = ">= 1.11.0"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.0"
    }
  }
}
