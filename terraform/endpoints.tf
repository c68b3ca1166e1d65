# Endpoints for the services that have one. CloudTrail's data API has none, so the destination cloudtrail still needs a NAT
# gateway; with the destination cloudwatch these are all that a Lambda needs.

locals {
  endpoint_services = !var.create_vpc_endpoints ? [] : concat(
    ["secretsmanager"],
    var.host == "lambda" ? ["lambda"] : ["logs", "ecr.api", "ecr.dkr"],
    local.cloudwatch && var.host == "lambda" ? ["logs"] : [],
  )

  # In China some services have another prefix.
  endpoint_prefixes = { for service in local.endpoint_services :
    service => local.partition == "aws-cn" && contains(["lambda", "ecr.api", "ecr.dkr"], service) ? "cn.com.amazonaws" : "com.amazonaws"
  }
}

resource "aws_security_group" "endpoints" {
  count = var.create_vpc_endpoints ? 1 : 0

  region      = var.aws_region
  name        = "${var.security_group}-endpoints"
  description = "Endpoints of AWS services, for the Kong audit relay"
  vpc_id      = var.existing_vpc
  tags        = var.resource_tags

  lifecycle {
    create_before_destroy = true
  }
}

# The whole VPC, not the relay alone: private DNS leads everybody in it here, the plugin among them.
resource "aws_vpc_security_group_ingress_rule" "endpoints_from_vpc" {
  for_each = var.create_vpc_endpoints ? local.vpc_cidrs : toset([])

  region            = var.aws_region
  security_group_id = aws_security_group.endpoints[0].id
  description       = "VPC"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  cidr_ipv4         = each.value
  tags              = var.resource_tags
}

resource "aws_vpc_endpoint" "service" {
  for_each = local.endpoint_prefixes

  region              = var.aws_region
  vpc_id              = var.existing_vpc
  service_name        = "${each.value}.${var.aws_region}.${each.key}"
  vpc_endpoint_type   = "Interface"
  private_dns_enabled = true
  subnet_ids          = var.existing_subnet_ids
  security_group_ids  = [aws_security_group.endpoints[0].id]
  policy              = var.vpc_endpoint_policy
  tags                = merge(var.resource_tags, { Name = "${var.resource_name}-${each.key}" })

  # An endpoint answers as soon as its name does, so its group must be open before.
  depends_on = [aws_vpc_security_group_ingress_rule.endpoints_from_vpc]
}

resource "aws_vpc_endpoint" "s3" {
  count = var.create_vpc_endpoints && length(var.vpc_endpoint_route_table_ids) > 0 ? 1 : 0

  region            = var.aws_region
  vpc_id            = var.existing_vpc
  service_name      = "com.amazonaws.${var.aws_region}.s3"
  vpc_endpoint_type = "Gateway"
  route_table_ids   = var.vpc_endpoint_route_table_ids
  tags              = merge(var.resource_tags, { Name = "${var.resource_name}-s3" })
}
