# What all tests start from: Terraform reads it from the directory of the tests. A test that needs more says so.

aws_region          = "us-east-1"
resource_name       = "relay"
existing_vpc        = "vpc-1"
existing_subnet_ids = ["subnet-1", "subnet-2"]
security_group      = "kong-relay"
channel_arn         = "arn:aws:cloudtrail:us-east-1:123456789012:channel/c"
image               = "123456789012.dkr.ecr.us-east-1.amazonaws.com/relay:1"
lambda_env = {
  KONG_ADMIN_API   = "https://kong.internal:8444"
  KONG_SUPERADMIN  = true
  KONG_ADMIN_TOKEN = "the-token"
  KONG_ROOT_CA     = "disabled"
  REDIS_DB         = "0"
  CHANNEL_ARN      = ""
}
